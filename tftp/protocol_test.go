package tftp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boardspec/boardspec/tftp"
)

func files(name string, size int) fstest.MapFS {
	return fstest.MapFS{name: {Data: content(size)}}
}

func TestOptionsAreNegotiated(t *testing.T) {
	for _, test := range []struct {
		name    string
		server  *tftp.Server
		mode    string
		options []string
		want    string
	}{
		{name: "none", want: "DATA 1 (512 bytes)"},
		{name: "as U-Boot sends them", options: []string{"timeout", "5", "blksize", "1468", "windowsize", "8"},
			want: "OACK timeout=5 blksize=1468 windowsize=8"},
		{name: "size", options: []string{"tsize", "0"}, want: "OACK tsize=3000"},
		{name: "names in any case", options: []string{"BlkSize", "1024", "TSIZE", "0"}, want: "OACK blksize=1024 tsize=3000"},
		{name: "modes in any case", mode: "OcTeT", want: "DATA 1 (512 bytes)"},
		{name: "smallest and largest blksize", options: []string{"blksize", "8"}, want: "OACK blksize=8"},
		{name: "largest blksize", options: []string{"blksize", "65464"}, want: "OACK blksize=65464"},
		{name: "leading zeros", options: []string{"blksize", "0000000000000000001024"}, want: "OACK blksize=1024"},
		{name: "out of range", options: []string{"blksize", "7", "windowsize", "0", "timeout", "256"}, want: "DATA 1 (512 bytes)"},
		{name: "no numbers", options: []string{"blksize", "many", "windowsize", "-1", "timeout", "+5", "tsize", ""}, want: "DATA 1 (512 bytes)"},
		{name: "too long a number", options: []string{"blksize", "99999999999999999999", "tsize", "0"}, want: "OACK tsize=3000"},
		{name: "unknown", options: []string{"multicast", "", "blksize2", "x", "blksize", "600"}, want: "OACK blksize=600"},
		{name: "twice: the first counts", options: []string{"blksize", "600", "blksize", "700"}, want: "OACK blksize=600"},
		{name: "window at most 16", options: []string{"windowsize", "65535"}, want: "OACK windowsize=16"},
		{name: "window as the server allows", server: &tftp.Server{MaxWindowSize: 4}, options: []string{"windowsize", "8"}, want: "OACK windowsize=4"},
		{name: "a window of bounded memory", server: &tftp.Server{MaxWindowSize: 65535},
			options: []string{"windowsize", "65535", "blksize", "65464"}, want: "OACK windowsize=512 blksize=65464"},
		{name: "blksize as the server allows", server: &tftp.Server{MaxBlockSize: 1000}, options: []string{"blksize", "1468"}, want: "OACK blksize=1000"},
		{name: "no timeout beyond patience", server: &tftp.Server{GiveUp: 8 * time.Second}, options: []string{"timeout", "5", "tsize", "0"}, want: "OACK tsize=3000"},
		{name: "netascii has no size", mode: "netascii", options: []string{"tsize", "0", "blksize", "600"}, want: "OACK blksize=600"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := test.server
			if server == nil {
				server = new(tftp.Server)
			}
			server.FS = files("f", 3000)
			mode := test.mode
			if mode == "" {
				mode = "octet"
			}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpRead, "f", mode, test.options...)
				p.expect(test.want)
			})
		})
	}
}

func TestRefusals(t *testing.T) {
	secret := errors.New("open /srv/secret/key: bad luck")
	tree := fstest.MapFS{"dir/f": {Data: []byte("x")}}
	for _, test := range []struct {
		name   string
		server *tftp.Server
		op     tftp.Op
		file   string
		mode   string
		want   string
	}{
		{"a server without files", &tftp.Server{}, tftp.OpRead, "f", "octet", `ERROR 2 "Nothing is served"`},
		{"no such file", &tftp.Server{FS: tree}, tftp.OpRead, "g", "octet", `ERROR 1 "File not found"`},
		{"a name of 500 characters", &tftp.Server{FS: tree}, tftp.OpRead, strings.Repeat("n", 500), "octet", `ERROR 1 "File not found"`},
		{"a directory", &tftp.Server{FS: tree}, tftp.OpRead, "dir", "octet", `ERROR 2 "Access violation"`},
		{"the root", &tftp.Server{FS: tree}, tftp.OpRead, "/", "octet", `ERROR 2 "Access violation"`},
		{"out of the tree", &tftp.Server{FS: tree}, tftp.OpRead, "../f", "octet", `ERROR 2 "Access violation"`},
		{"out of the tree by a detour", &tftp.Server{FS: tree}, tftp.OpRead, "/dir/../../f", "octet", `ERROR 2 "Access violation"`},
		{"out of the tree by backslashes", &tftp.Server{FS: tree}, tftp.OpRead, `..\..\f`, "octet", `ERROR 1 "File not found"`},
		{"mode mail", &tftp.Server{FS: tree}, tftp.OpRead, "dir/f", "mail", `ERROR 4 "Unknown mode"`},
		{"a write that is not accepted", &tftp.Server{FS: tree}, tftp.OpWrite, "f", "octet", `ERROR 2 "Uploads are not accepted"`},
		{"an error with a path of this host", &tftp.Server{Open: func(context.Context, tftp.Request) (io.Reader, error) { return nil, secret }},
			tftp.OpRead, "f", "octet", `ERROR 0 "Input/output error"`},
		{"an error of the caller's choice", &tftp.Server{Open: func(context.Context, tftp.Request) (io.Reader, error) {
			return nil, fmt.Errorf("at night: %w", &tftp.Error{Code: 7, Message: "Come back tomorrow"})
		}}, tftp.OpRead, "f", "octet", `ERROR 7 "Come back tomorrow"`},
		{"an error that U-Boot stops at", &tftp.Server{FinalErrors: true, Open: func(context.Context, tftp.Request) (io.Reader, error) { return nil, secret }},
			tftp.OpRead, "f", "octet", `ERROR 2 "Input/output error"`},
		{"nothing but an error from Open", &tftp.Server{Open: func(context.Context, tftp.Request) (io.Reader, error) { return nil, nil }},
			tftp.OpRead, "f", "octet", `ERROR 1 "File not found"`},
		{"a busy server", &tftp.Server{FS: tree, MaxTransfers: -1}, tftp.OpRead, "f", "octet", `ERROR 0 "Too many transfers"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			withServer(t, test.server, func(t *testing.T, _ *network, p *peer) {
				p.request(test.op, test.file, test.mode)
				p.expect(test.want)
				synctest.Wait()
				transfer := only(t, test.server)
				if transfer.Outcome != tftp.Failed || transfer.Err == nil || transfer.Filename != test.file || transfer.End.IsZero() {
					t.Errorf("record %+v", transfer)
				}
			})
		})
	}
}

func TestRefusalKeepsItsCause(t *testing.T) {
	server := &tftp.Server{FS: fstest.MapFS{}}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "uImage", "octet")
		p.expect(`ERROR 1 "File not found"`)
		synctest.Wait()
		err := only(t, server).Err
		if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "tftp: read uImage: peer 192.168.7.2:1069: open") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestMalformedRequests(t *testing.T) {
	for name, packet := range map[string]string{
		"no mode":            "\x00\x01f\x00",
		"unterminated mode":  "\x00\x01f\x00octet",
		"no name":            "\x00\x01\x00octet\x00",
		"no value":           "\x00\x01f\x00octet\x00blksize\x00",
		"unterminated value": "\x00\x01f\x00octet\x00blksize\x00512",
		"nothing":            "\x00\x01",
		"longer than sense":  "\x00\x01" + strings.Repeat("n", 4000) + "\x00octet\x00",
	} {
		t.Run(name, func(t *testing.T) {
			server := &tftp.Server{FS: files("f", 1)}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.send([]byte(packet))
				p.expect(`ERROR 4 "Malformed request"`)
				synctest.Wait()
				if transfer := only(t, server); transfer.Outcome != tftp.Failed || len(transfer.Filename) > 600 {
					t.Errorf("record %+v", transfer)
				}
			})
		})
	}
}

func TestPacketsThatAreNoRequestAreCounted(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		for _, packet := range []string{"", "\x00", "\x00\x03\x00\x01data", "\x00\x04\x00\x01", "\x00\x05\x00\x00no\x00", "\x00\x06a\x001\x00", "\xff\xff"} {
			p.send([]byte(packet))
		}
		p.expectSilence(time.Minute)
		if got := server.Stats(); got != (tftp.Stats{Nonsense: 7}) {
			t.Errorf("counts are %+v", got)
		}
		if transfers := server.Transfers(); len(transfers) != 0 {
			t.Errorf("transfers %v", transfers)
		}
	})
}

func TestNames(t *testing.T) {
	for _, name := range []string{"boot/dir/f", "/boot/dir/f", "//boot/dir/f", "./boot/dir/f", "boot//dir/./f", "boot/x/../dir/f", `boot\dir\f`, `\boot\dir\f`} {
		t.Run(name, func(t *testing.T) {
			server := &tftp.Server{FS: files("boot/dir/f", 3)}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpRead, name, "octet")
				p.expect("DATA 1 (3 bytes)")
				p.ack(1)
				synctest.Wait()
				if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Filename != name {
					t.Errorf("record %+v", transfer)
				}
			})
		})
	}
}

func TestRecordOfARead(t *testing.T) {
	server := &tftp.Server{FS: files("f", 3000)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		start := time.Now()
		p.request(tftp.OpRead, "f", "OCTET", "BLKSIZE", "1468", "tsize", "0", "windowsize", "2", "unknown", "x")
		p.expect("OACK blksize=1468 tsize=3000 windowsize=2")
		p.ack(0)
		p.expect("DATA 1 (1468 bytes)", "DATA 2 (1468 bytes)")
		p.ack(2)
		p.expect("DATA 3 (64 bytes)")
		synctest.Wait()
		running := only(t, server)
		if running.Outcome != tftp.Running || running.Size != 2936 || running.Blocks != 2 || running.TotalSize != 3000 || !running.End.IsZero() {
			t.Errorf("while running: %+v", running)
		}
		p.expectSilence(300 * time.Millisecond)
		p.ack(3)
		synctest.Wait()
		want := tftp.Transfer{
			Op: tftp.OpRead, Filename: "f", Mode: "octet",
			Peer: netip.MustParseAddrPort("192.168.7.2:1069"), Local: p.tid,
			Requested: map[string]string{"blksize": "1468", "tsize": "0", "windowsize": "2", "unknown": "x"},
			Granted:   map[string]string{"blksize": "1468", "tsize": "3000", "windowsize": "2"},
			BlockSize: 1468, WindowSize: 2, Size: 3000, TotalSize: 3000, Blocks: 3,
			SHA256: sha256.Sum256(content(3000)), CRC32: crc32.ChecksumIEEE(content(3000)),
			Outcome: tftp.Complete, Start: start, End: start.Add(300 * time.Millisecond),
		}
		if diff := cmp.Diff(want, only(t, server), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("the record differs (-want +got):\n%s", diff)
		}
	})
}

func TestARequestThatComesAgainIsTheSameTransfer(t *testing.T) {
	server := &tftp.Server{FS: files("f", 700)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		p.request(tftp.OpRead, "f", "octet") // the client has not seen block 1
		p.expect("DATA 1 (512 bytes)")
		p.ack(1)
		p.expect("DATA 2 (188 bytes)")
		tid := p.tid
		p.request(tftp.OpRead, "f", "octet") // a copy that came late
		p.expectSilence(100 * time.Millisecond)
		p.tid = tid
		p.ack(2)
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Duplicates != 2 || transfer.Resent != 1 {
			t.Errorf("record %+v", transfer)
		}
	})
}

func TestAClientThatBeginsAnewFromTheSamePort(t *testing.T) {
	for name, test := range map[string]struct {
		file string
		wait time.Duration
		old  tftp.Outcome
	}{
		"with another file":                  {"g", 0, tftp.Aborted},
		"with the same file, after a while":  {"f", time.Second, tftp.Aborted},
		"when only the last ACK was to come": {"last", 0, tftp.Unconfirmed},
	} {
		t.Run(name, func(t *testing.T) {
			tree := fstest.MapFS{"f": {Data: content(2000)}, "g": {Data: content(10)}, "last": {Data: content(600)}}
			server := &tftp.Server{FS: tree}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				first := "f"
				if test.file == "last" {
					first, test.file = "last", "g"
				}
				p.request(tftp.OpRead, first, "octet", "timeout", "9")
				p.expect("OACK timeout=9")
				p.ack(0)
				p.expect("DATA 1 (512 bytes)")
				p.ack(1)
				p.next(time.Millisecond)
				p.expectSilence(test.wait)
				p.request(tftp.OpRead, test.file, "octet")
				if got := p.next(time.Millisecond); !strings.HasPrefix(got, "DATA 1 ") {
					t.Fatalf("got %s, want block 1 of the new transfer", got)
				}
				synctest.Wait()
				transfers := server.Transfers()
				if len(transfers) != 2 || transfers[0].Outcome != test.old || transfers[1].Outcome != tftp.Running {
					t.Errorf("records %v", transfers)
				}
			})
		})
	}
}

// A client that reads one file after the other from one port: its next request
// may be read before its last ACK, which is on another socket.
func TestFilesInARowFromOnePort(t *testing.T) {
	server := &tftp.Server{FS: files("f", 700)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		for range 50 {
			p.request(tftp.OpRead, "f", "octet")
			p.expect("DATA 1 (512 bytes)")
			p.ack(1)
			p.expect("DATA 2 (188 bytes)")
			p.ack(2)
		}
		synctest.Wait()
		transfers := server.Transfers()
		for _, transfer := range transfers {
			if transfer.Outcome != tftp.Complete || transfer.Resent != 0 {
				t.Errorf("record %v", transfer)
			}
		}
		if len(transfers) != 50 {
			t.Errorf("%d transfers", len(transfers))
		}
	})
}

func TestRepeatedACKsDoNotDoubleThePackets(t *testing.T) {
	server := &tftp.Server{FS: files("f", 2000)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet")
		for block := uint16(1); block <= 4; block++ {
			p.expect(fmt.Sprintf("DATA %d (%d bytes)", block, min(512, 2000-512*(int(block)-1))))
			p.ack(block)
			p.ack(block)
		}
		p.expectSilence(20 * time.Second)
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Resent != 0 || transfer.Duplicates != 3 {
			t.Errorf("record %+v", transfer)
		}
	})
}

// A client that acknowledges each copy of a block again, and a network that
// once doubled an ACK: at a window of more than one, the copies of one window
// must not bring forth those of the next.
func TestCopiesOfAWindowDieOut(t *testing.T) {
	server := &tftp.Server{FS: files("f", 512*4*20)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "windowsize", "4")
		p.expect("OACK windowsize=4")
		p.ack(0)
		have, copies, packets := 0, 0, 0
		for have < 4*20+1 {
			text := p.next(time.Minute)
			var block, size int
			if _, err := fmt.Sscanf(text, "DATA %d (%d bytes)", &block, &size); err != nil {
				t.Fatalf("got %s", text)
			}
			packets++
			switch {
			case block == have+1:
				have++
				if have%4 == 0 || size < 512 {
					p.ack(uint16(have))
					if have == 4 {
						p.ack(uint16(have))
					}
				}
			case block <= have && block%4 == 0:
				copies++
				p.ack(uint16(have))
			}
		}
		if packets > 4*20+1+3*4 {
			t.Errorf("%d packets for %d blocks", packets, have)
		}
		if copies == 0 {
			t.Error("the doubled ACK had no effect: this test shows nothing")
		}
	})
}

func TestWindowGoesBackToTheGap(t *testing.T) {
	server := &tftp.Server{FS: files("f", 512*8)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "windowsize", "4")
		p.expect("OACK windowsize=4")
		p.ack(0)
		p.expect("DATA 1 (512 bytes)", "DATA 2 (512 bytes)", "DATA 3 (512 bytes)", "DATA 4 (512 bytes)")
		p.ack(2) // block 3 is missing
		p.expect("DATA 3 (512 bytes)", "DATA 4 (512 bytes)", "DATA 5 (512 bytes)", "DATA 6 (512 bytes)")
		p.ack(6)
		p.expect("DATA 7 (512 bytes)", "DATA 8 (512 bytes)", "DATA 9 (0 bytes)")
		p.ack(6) // block 7 is missing
		p.expect("DATA 7 (512 bytes)", "DATA 8 (512 bytes)", "DATA 9 (0 bytes)")
		p.ack(6) // once more: left to the timer
		p.expectSilence(999500 * time.Microsecond)
		p.expect("DATA 7 (512 bytes)", "DATA 8 (512 bytes)", "DATA 9 (0 bytes)")
		p.ack(3) // old
		p.ack(9)
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Gaps != 2 || transfer.Timeouts != 1 || transfer.Resent != 2+3+3 {
			t.Errorf("record %+v", transfer)
		}
	})
}

// A board that cannot take a window at once gets it in smaller bursts, and less
// of it the next time.
func TestWindowShrinksAfterRepeatedGaps(t *testing.T) {
	server := &tftp.Server{FS: files("f", 512*64)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "windowsize", "8")
		p.expect("OACK windowsize=8")
		p.ack(0)
		have := 0
		for have < 65 {
			// What a receiver with room for two packets gets of a burst.
			burst := []string{p.next(time.Minute)}
			synctest.Wait()
			for text := p.next(time.Microsecond); text != "nothing"; text = p.next(time.Microsecond) {
				burst = append(burst, text)
			}
			for _, text := range burst[:min(2, len(burst))] {
				var block int
				if _, err := fmt.Sscanf(text, "DATA %d ", &block); err != nil {
					t.Fatalf("got %s", text)
				}
				if block == have+1 {
					have++
				}
			}
			if len(burst) > 2 || have%8 == 0 || have == 65 {
				p.ack(uint16(have))
			}
		}
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Gaps > 8 || transfer.Gaps < 4 {
			t.Errorf("record %+v", transfer)
		}
		p.request(tftp.OpRead, "f", "octet", "windowsize", "8")
		p.expect("OACK windowsize=4")
	})
}

// In small bursts as well, an ACK counts for blocks that were sent before the
// sender went back.
func TestALateACKInSmallBursts(t *testing.T) {
	server := &tftp.Server{FS: files("f", 512*20)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "windowsize", "4")
		p.expect("OACK windowsize=4")
		p.ack(0)
		drain := func() {
			for p.next(10*time.Millisecond) != "nothing" {
			}
		}
		for block := range uint16(3) {
			drain()
			p.ack(block + 1) // the block after it is missing, three times over
		}
		drain()
		p.expectSilence(900 * time.Millisecond)
		if got := p.next(time.Second); got != "DATA 4 (512 bytes)" {
			t.Fatalf("got %s", got)
		}
		p.ack(7) // late: of the window before the timer ran out
		drain()
		if got := only(t, server); got.Blocks != 7 || got.Gaps != 3 || got.Timeouts != 1 {
			t.Errorf("record %+v", got)
		}
	})
}

func TestASilentClient(t *testing.T) {
	for name, test := range map[string]struct {
		server  *tftp.Server
		options []string
		acks    int
		lasts   time.Duration
		sent    int // copies of the packet that gets no answer
		outcome tftp.Outcome
	}{
		"from the start":           {outcome: tftp.Failed, lasts: 30 * time.Second, sent: 30},
		"before the OACK":          {options: []string{"timeout", "5"}, outcome: tftp.Failed, lasts: 30 * time.Second, sent: 6},
		"with a longer timer":      {options: []string{"timeout", "20"}, outcome: tftp.Failed, lasts: 80 * time.Second, sent: 4},
		"half-way":                 {acks: 1, outcome: tftp.Failed, lasts: 30 * time.Second, sent: 30},
		"at the last block":        {acks: 3, outcome: tftp.Unconfirmed, lasts: 12 * time.Second, sent: 12},
		"with an impatient server": {server: &tftp.Server{GiveUp: 3 * time.Second, Timeout: 2 * time.Second}, outcome: tftp.Failed, lasts: 3 * time.Second, sent: 2},
	} {
		t.Run(name, func(t *testing.T) {
			server := test.server
			if server == nil {
				server = new(tftp.Server)
			}
			server.FS = files("f", 1600)
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpRead, "f", "octet", test.options...)
				text := p.next(time.Millisecond)
				for block := range uint16(test.acks) {
					p.expectSilence(400 * time.Millisecond) // each answer renews the patience
					p.ack(block + 1)
					text = p.next(time.Millisecond)
				}
				begin, sent := time.Now(), 1
				for {
					got := p.next(time.Minute)
					if got == text {
						sent++
						continue
					}
					if test.outcome == tftp.Failed && got != `ERROR 0 "Timeout"` || test.outcome == tftp.Unconfirmed && got != "nothing" {
						t.Errorf("the end is %s", got)
					}
					break
				}
				synctest.Wait() // the record is final after the ERROR was sent
				transfer := only(t, server)
				if transfer.Outcome != test.outcome || !errors.Is(transfer.Err, tftp.ErrTimeout) {
					t.Errorf("record %+v", transfer)
				}
				if lasted := transfer.End.Sub(begin).Round(10 * time.Millisecond); lasted != test.lasts || sent != test.sent {
					t.Errorf("%d packets within %v, want %d within %v", sent, lasted, test.sent, test.lasts)
				}
			})
		})
	}
}

func TestAnErrorOfTheClientEndsTheTransfer(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1600)}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "tsize", "0")
		p.expect("OACK tsize=1600")
		p.send([]byte("\x00\x05\x00\x08only the size, thanks\x00"))
		p.expectSilence(time.Minute)
		transfer := only(t, server)
		var sent *tftp.PeerError
		if transfer.Outcome != tftp.Aborted || !errors.As(transfer.Err, &sent) || *sent.Sent != (tftp.Error{Code: 8, Message: "only the size, thanks"}) {
			t.Errorf("record %+v", transfer)
		}
	})
}

func TestAStrangerOnATransfersPort(t *testing.T) {
	server := &tftp.Server{FS: files("f", 600), Peers: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		stranger, outsider := newPeer(t, n, "192.168.7.3:2000"), newPeer(t, n, "10.0.0.1:2000")
		defer stranger.conn.Close()
		defer outsider.conn.Close()
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		stranger.tid, outsider.tid = p.tid, p.tid
		stranger.ack(1)
		stranger.expect(`ERROR 5 "Unknown transfer ID"`)
		stranger.send([]byte("\x00\x05\x00\x00an error is not answered\x00"))
		outsider.ack(1)
		outsider.request(tftp.OpRead, "f", "octet")
		stranger.expectSilence(10 * time.Millisecond)
		outsider.expectSilence(10 * time.Millisecond)
		p.ack(1)
		p.expect("DATA 2 (88 bytes)")
		p.ack(2)
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Strays != 2 {
			t.Errorf("record %+v", transfer)
		}
		if got := server.Stats(); got != (tftp.Stats{Outside: 2}) {
			t.Errorf("counts are %+v", got)
		}
	})
}

func TestNetascii(t *testing.T) {
	text := "one\ntwo\r\nthree\rend\r"
	translated := "one\r\ntwo\r\x00\r\nthree\r\x00end\r\x00"
	server := &tftp.Server{FS: fstest.MapFS{"f": {Data: []byte(text)}}, Create: new(tftp.Memory).Create}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "NetAscii", "blksize", "8")
		p.expect("OACK blksize=8")
		p.ack(0)
		var got []byte
		for block := uint16(1); ; block++ {
			p.expect(fmt.Sprintf("DATA %d (%d bytes)", block, min(8, len(translated)-len(got))))
			payload := p.buf[4 : 4+min(8, len(translated)-len(got))]
			got = append(got, payload...)
			p.ack(block)
			if len(payload) < 8 {
				break
			}
		}
		if string(got) != translated {
			t.Errorf("got %q, want %q", got, translated)
		}
		synctest.Wait()
		transfer := only(t, server)
		if transfer.Outcome != tftp.Complete || transfer.Size != int64(len(translated)) || transfer.SHA256 != sha256.Sum256([]byte(translated)) {
			t.Errorf("record %+v", transfer)
		}
	})
}

// A file of 70,000 blocks: the number on the wire goes on with 0.
func TestRollover(t *testing.T) {
	server := &tftp.Server{FS: files("f", 70000*8+3), MaxWindowSize: 64}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		var got bytes.Buffer
		client := &tftp.Client{BlockSize: 8, WindowSize: 64, ListenPacket: n.ListenPacket}
		record, err := client.Get(t.Context(), serverPort, "f", &got)
		if err != nil || record.Blocks != 70001 || !bytes.Equal(got.Bytes(), content(70000*8+3)) {
			t.Fatalf("%v, %v", record, err)
		}
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.SHA256 != record.SHA256 || transfer.Resent != 0 {
			t.Errorf("record %v", transfer)
		}
	})
}

func TestCloseEndsTransfers(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1600), Create: new(tftp.Memory).Create}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		writer := newPeer(t, n, "192.168.7.2:1070")
		defer writer.conn.Close()
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		writer.request(tftp.OpWrite, "g", "octet")
		writer.expect("ACK 0")
		begin := time.Now()
		if err := server.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("Close took %v", took)
		}
		p.expect(`ERROR 0 "Server closed"`)
		writer.expect(`ERROR 0 "Server closed"`)
		for _, transfer := range server.Transfers() {
			if transfer.Outcome != tftp.Canceled || !errors.Is(transfer.Err, tftp.ErrServerClosed) {
				t.Errorf("record %+v", transfer)
			}
		}
		if err := server.Settled(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// blocked is a file whose reads last until the context of its request ends, or
// for ever.
type blocked struct{ until <-chan struct{} }

func (b blocked) Read([]byte) (int, error) {
	<-b.until
	return 0, context.Canceled
}

func TestCloseNamesWhatHoldsIt(t *testing.T) {
	hold := make(chan struct{})
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold = make(chan struct{})
		n := newNetwork()
		conn, err := n.ListenPacket("udp", serverPort.String())
		if err != nil {
			t.Fatal(err)
		}
		server := &tftp.Server{ListenPacket: n.ListenPacket, Open: func(context.Context, tftp.Request) (io.Reader, error) {
			return blocked{hold}, nil
		}}
		served := make(chan error, 1)
		go func() { served <- server.Serve(conn) }()
		p := newPeer(t, n, "192.168.7.2:1069")
		p.request(tftp.OpRead, "slow", "octet")
		synctest.Wait()
		settle, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := server.Settled(settle); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `read "slow" by 192.168.7.2:1069`) {
			t.Errorf("Settled returned %v", err)
		}
		begin := time.Now()
		err = server.Close()
		if err == nil || !strings.Contains(err.Error(), `read "slow" by 192.168.7.2:1069`) || time.Since(begin) != 5*time.Second {
			t.Errorf("Close returned %v after %v", err, time.Since(begin))
		}
		p.expect(`ERROR 0 "Server closed"`)
		close(hold)
		<-served
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		p.conn.Close()
	})
}

func TestTheContextOfOpenEndsWithClose(t *testing.T) {
	server := &tftp.Server{Open: func(ctx context.Context, _ tftp.Request) (io.Reader, error) {
		return blocked{ctx.Done()}, nil
	}}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet")
		synctest.Wait()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if transfer := only(t, server); transfer.Outcome != tftp.Canceled {
			t.Errorf("record %v", transfer)
		}
	})
}

// A file that is made while it is sent: each part waits for the transfer of the
// one before.
func TestContentMadeOnDemand(t *testing.T) {
	type part struct{ data string }
	parts := make(chan part)
	server := &tftp.Server{}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		parts = make(chan part)
		server.Open = func(_ context.Context, r tftp.Request) (io.Reader, error) {
			if r.Filename != "made/up" || r.Options["blksize"] != "8" || r.Peer.Port() != 1069 || r.Op != tftp.OpRead {
				t.Errorf("request %+v", r)
			}
			return readerFunc(func(p []byte) (int, error) {
				next, ok := <-parts
				if !ok {
					return 0, io.EOF
				}
				return copy(p, next.data), nil
			}), nil
		}
		p.request(tftp.OpRead, "made/up", "octet", "blksize", "8", "tsize", "0")
		p.expect("OACK blksize=8")
		p.ack(0)
		parts <- part{"12345678"}
		p.expect("DATA 1 (8 bytes)")
		p.ack(1)
		p.expectSilence(time.Hour) // the patience is for the peer, not for the source
		parts <- part{"last"}
		close(parts)
		p.expect("DATA 2 (4 bytes)")
		p.ack(2)
		synctest.Wait()
		if transfer := only(t, server); transfer.Outcome != tftp.Complete || transfer.Timeouts != 0 {
			t.Errorf("record %+v", transfer)
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAFileThatGoesWrongWhileItIsSent(t *testing.T) {
	for name, test := range map[string]struct {
		read func() (int, error)
		want string
	}{
		"it shrinks": {func() (int, error) { return 0, io.EOF }, `ERROR 0 "File changed while it was sent"`},
		"it fails":   {func() (int, error) { return 0, errors.New("/dev/sda: bad sector") }, `ERROR 0 "Input/output error"`},
	} {
		t.Run(name, func(t *testing.T) {
			server := &tftp.Server{Open: func(context.Context, tftp.Request) (io.Reader, error) {
				good := io.Reader(bytes.NewReader(content(600)))
				return &sized{io.MultiReader(good, readerFunc(func([]byte) (int, error) { return test.read() })), 2000}, nil
			}}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpRead, "f", "octet")
				p.expect("DATA 1 (512 bytes)")
				p.ack(1)
				p.expect(test.want)
				synctest.Wait()
				transfer := only(t, server)
				if transfer.Outcome != tftp.Failed || transfer.Size != 512 || transfer.SHA256 != sha256.Sum256(content(512)) {
					t.Errorf("record %+v", transfer)
				}
			})
		})
	}
}

type sized struct {
	io.Reader
	size int64
}

func (s *sized) Size() int64 { return s.size }

// A file that grows is sent as it was when it was opened.
func TestAFileThatGrows(t *testing.T) {
	server := &tftp.Server{Open: func(context.Context, tftp.Request) (io.Reader, error) {
		return &sized{bytes.NewReader(content(5000)), 600}, nil
	}}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet", "tsize", "0")
		p.expect("OACK tsize=600")
		p.ack(0)
		p.expect("DATA 1 (512 bytes)")
		p.ack(1)
		p.expect("DATA 2 (88 bytes)")
		p.ack(2)
	})
}

func TestASinglePort(t *testing.T) {
	memory := new(tftp.Memory)
	server := &tftp.Server{FS: files("f", 600), Create: memory.Create, SinglePort: true}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		var got bytes.Buffer
		client := &tftp.Client{ListenPacket: n.ListenPacket}
		record, err := client.Get(t.Context(), serverPort, "f", &got)
		if err != nil || !bytes.Equal(got.Bytes(), content(600)) || record.Peer != serverPort {
			t.Fatalf("%v, %v", record, err)
		}
		record, err = client.Put(t.Context(), serverPort, "up", bytes.NewReader(content(5000)))
		if err != nil || record.Peer != serverPort {
			t.Fatalf("%v, %v", record, err)
		}
		if data, _ := memory.Bytes("up"); !bytes.Equal(data, content(5000)) {
			t.Error("the upload differs")
		}
		if open := n.open(); open != 2 {
			t.Errorf("%d connections are open, want the server's and the peer's", open)
		}
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		p.expectSilence(900 * time.Millisecond)
		p.expect("nothing")
		p.ack(1)
		p.expect("DATA 2 (88 bytes)")
		p.ack(2)
		synctest.Wait()
		for _, transfer := range server.Transfers() {
			if transfer.Outcome != tftp.Complete {
				t.Errorf("record %v", transfer)
			}
		}
	})
}

// 10,000 requests of one address, each from a port of its own, none answered:
// the server stays bounded and there for others.
func TestAFloodOfRequests(t *testing.T) {
	server := &tftp.Server{FS: files("f", 1600), MaxTransfers: 64}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		flood := newPeer(t, n, "192.168.7.66:1")
		defer flood.conn.Close()
		for port := range 10000 {
			conn, err := n.ListenPacket("udp", fmt.Sprintf("192.168.7.9:%d", 1024+port))
			if err != nil {
				t.Fatal(err)
			}
			(&peer{t: t, conn: conn, tid: serverPort}).request(tftp.OpRead, "f", "octet")
			conn.Close()
			if port%1000 == 999 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if open := n.open(); open > 32+3 {
			t.Errorf("%d connections are open", open)
		}
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (512 bytes)")
		running := 0
		for _, transfer := range server.Transfers() {
			if transfer.Outcome == tftp.Running {
				running++
			}
		}
		if running != 32+1 {
			t.Errorf("%d transfers are running", running)
		}
	})
}

func TestOldRecordsMakeRoom(t *testing.T) {
	server := &tftp.Server{}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		for range 16384 + 100 {
			p.request(tftp.OpRead, "f", "nonsense")
			p.expect(`ERROR 4 "Unknown mode"`)
		}
		synctest.Wait()
		if records, stats := len(server.Transfers()), server.Stats(); records != 16384 || stats.Forgotten != 100 {
			t.Errorf("%d records, %+v", records, stats)
		}
	})
}

func TestServeTwice(t *testing.T) {
	server := &tftp.Server{}
	withServer(t, server, func(t *testing.T, n *network, _ *peer) {
		conn, err := n.ListenPacket("udp", "192.168.7.1:70")
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Serve(conn); err == nil || errors.Is(err, tftp.ErrServerClosed) {
			t.Errorf("a second Serve returned %v", err)
		}
	})
}

func TestCloseBeforeServe(t *testing.T) {
	t.Parallel()
	var server tftp.Server
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	conn, err := newNetwork().ListenPacket("udp", serverPort.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(conn); !errors.Is(err, tftp.ErrServerClosed) {
		t.Errorf("Serve returned %v", err)
	}
	if _, err := conn.WriteTo(nil, conn.LocalAddr()); err == nil {
		t.Error("Serve left its connection open")
	}
}

func TestErrorsCompareWithThoseOfPackageFS(t *testing.T) {
	t.Parallel()
	for code, want := range map[tftp.ErrorCode]error{1: fs.ErrNotExist, 2: fs.ErrPermission, 6: fs.ErrExist} {
		if err := error(&tftp.PeerError{Sent: &tftp.Error{Code: code}}); !errors.Is(err, want) {
			t.Errorf("code %d is not %v", code, want)
		}
	}
	if errors.Is(&tftp.Error{Code: 0}, fs.ErrNotExist) {
		t.Error("code 0 is fs.ErrNotExist")
	}
}

func TestNotify(t *testing.T) {
	var seen []string
	server := &tftp.Server{FS: files("f", 10), Notify: func(t tftp.Transfer) {
		seen = append(seen, fmt.Sprintf("%v %d %d", t.Outcome, t.BlockSize, t.Size))
	}}
	withServer(t, server, func(t *testing.T, _ *network, p *peer) {
		p.request(tftp.OpRead, "f", "octet")
		p.expect("DATA 1 (10 bytes)")
		p.ack(1)
		synctest.Wait()
		if diff := cmp.Diff([]string{"running 512 0", "complete 512 10"}, seen); diff != "" {
			t.Error(diff)
		}
	})
}
