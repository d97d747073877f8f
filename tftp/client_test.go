package tftp_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// asServer plays a server packet by packet against a client.
func asServer(t *testing.T, play func(t *testing.T, n *network, p *peer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		p := newPeer(t, n, serverPort.String())
		defer p.conn.Close()
		play(t, n, p)
	})
}

type result struct {
	record tftp.Transfer
	err    error
	data   bytes.Buffer
}

func get(ctx context.Context, c *tftp.Client, name string) <-chan *result {
	done := make(chan *result, 1)
	go func() {
		r := new(result)
		r.record, r.err = c.Get(ctx, serverPort, name, &r.data)
		done <- r
	}()
	return done
}

func TestGetPacketByPacket(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, Timeout: 3 * time.Second}, "dir/f")
		want := `RRQ "dir/f" octet tsize=0 blksize=1468 windowsize=16 timeout=3`
		p.expect(want)
		p.expectSilence(2999500 * time.Microsecond)
		p.expect(want)
		transfer := newPeer(t, n, "192.168.7.1:2000") // the server's TID
		transfer.tid = p.tid
		transfer.send([]byte("\x00\x06tsize\x0020\x00blksize\x0010\x00timeout\x003\x00windowsize\x002\x00"))
		transfer.expect("ACK 0")
		transfer.data(1, content(20)[:10])
		transfer.data(2, content(20)[10:])
		transfer.expect("ACK 2")
		transfer.data(3, nil)
		transfer.expect("ACK 3")
		r := <-done
		if r.err != nil || !bytes.Equal(r.data.Bytes(), content(20)) {
			t.Fatalf("%v, %v", r.record, r.err)
		}
		if r.record.Peer != netip.MustParseAddrPort("192.168.7.1:2000") || r.record.Timeouts != 1 || r.record.TotalSize != 20 ||
			r.record.Granted["blksize"] != "10" || r.record.WindowSize != 2 || r.record.Outcome != tftp.Complete {
			t.Errorf("record %+v", r.record)
		}
		transfer.conn.Close()
		if open := n.open(); open != 1 {
			t.Errorf("%d connections are open", open)
		}
	})
}

func TestGetWithoutOptions(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true, Mode: "NETASCII"}, "f")
		p.expect(`RRQ "f" netascii`)
		p.data(1, []byte("a\r\nb"))
		p.expect("ACK 1")
		if r := <-done; r.err != nil || r.data.String() != "a\nb" {
			t.Fatalf("%q, %v", &r.data, r.err)
		}
	})
}

// A server that knows no options answers with block 1 at once.
func TestGetFromAServerWithoutOptions(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, Options: map[string]string{"X-Board": "1", "tsize": "7"}}, "f")
		p.expect(`RRQ "f" octet tsize=7 blksize=1468 windowsize=16 x-board=1`)
		p.data(1, content(512))
		p.expect("ACK 1")
		p.data(2, nil)
		p.expect("ACK 2")
		if r := <-done; r.err != nil || r.record.BlockSize != 512 || r.record.WindowSize != 1 || len(r.record.Granted) != 0 {
			t.Fatalf("%+v, %v", r.record, r.err)
		}
	})
}

func TestBadAnswersToAGet(t *testing.T) {
	for _, test := range []struct{ name, answer, said, err string }{
		{"blksize larger than asked", "\x00\x06blksize\x001469\x00", `ERROR 8 "Option negotiation failed"`, `answers blksize=1468 with "1469"`},
		{"blksize too small", "\x00\x06blksize\x007\x00", `ERROR 8 "Option negotiation failed"`, `answers blksize=1468 with "7"`},
		{"no number", "\x00\x06blksize\x00x\x00", `ERROR 8 "Option negotiation failed"`, `answers blksize=1468 with "x"`},
		{"windowsize 0", "\x00\x06windowsize\x000\x00", `ERROR 8 "Option negotiation failed"`, `answers windowsize=16 with "0"`},
		{"another timeout", "\x00\x06timeout\x009\x00", `ERROR 8 "Option negotiation failed"`, `answers timeout=5 with "9"`},
		{"not asked for", "\x00\x06multicast\x00x\x00", `ERROR 8 "Option negotiation failed"`, "not asked for"},
		{"malformed", "\x00\x06blksize", `ERROR 8 "Option negotiation failed"`, "malformed"},
		{"an error", "\x00\x05\x00\x01nothing here\x00", "nothing", "error 1: nothing here"},
		{"an error without its end", "\x00\x05\x00\x01nothing", "nothing", "error 1: nothing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			asServer(t, func(t *testing.T, n *network, p *peer) {
				done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, Timeout: 5 * time.Second}, "f")
				p.next(time.Second)
				p.send([]byte(test.answer))
				r := <-done
				if r.err == nil || !strings.Contains(r.err.Error(), test.err) || !strings.HasPrefix(r.err.Error(), "tftp: read f: server 192.168.7.1:69: ") {
					t.Errorf("the error is %v", r.err)
				}
				p.expect(test.said)
				if r.record.Outcome == tftp.Complete || r.record.Err != r.err {
					t.Errorf("record %+v", r.record)
				}
			})
		})
	}
}

func TestAGetThatDoesNotSucceed(t *testing.T) {
	for name, test := range map[string]struct {
		play    func(p *peer)
		err     error
		outcome tftp.Outcome
		lasts   time.Duration
	}{
		"nobody answers":          {func(*peer) {}, tftp.ErrTimeout, tftp.Failed, 30 * time.Second},
		"the server falls silent": {func(p *peer) { p.data(1, content(512)); p.next(time.Millisecond) }, tftp.ErrTimeout, tftp.Failed, 30 * time.Second},
		"less than announced": {func(p *peer) {
			p.send([]byte("\x00\x06tsize\x00600\x00"))
			p.expect("ACK 0")
			p.data(1, content(100))
		}, nil, tftp.Failed, 0},
		"no such file": {func(p *peer) { p.send([]byte("\x00\x05\x00\x01\x00")) }, fs.ErrNotExist, tftp.Aborted, 0},
	} {
		t.Run(name, func(t *testing.T) {
			asServer(t, func(t *testing.T, n *network, p *peer) {
				begin := time.Now()
				done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket}, "f")
				p.next(time.Millisecond)
				test.play(p)
				r := <-done
				if r.err == nil || test.err != nil && !errors.Is(r.err, test.err) || r.record.Outcome != test.outcome || time.Since(begin).Truncate(time.Second) != test.lasts {
					t.Errorf("after %v: %v, %+v", time.Since(begin), r.err, r.record)
				}
				if open := n.open(); open != 1 {
					t.Errorf("%d connections are open", open)
				}
			})
		})
	}
}

func TestTheContextEndsAGet(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := get(ctx, &tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true}, "f")
		p.expect(`RRQ "f" octet`)
		p.data(1, content(512))
		p.expect("ACK 1")
		enough := errors.New("enough")
		cancel(enough)
		r := <-done
		if !errors.Is(r.err, enough) || r.record.Outcome != tftp.Canceled || r.record.Size != 512 {
			t.Errorf("%v, %+v", r.err, r.record)
		}
		p.expect(`ERROR 0 "Canceled"`)

		r = <-get(ctx, &tftp.Client{ListenPacket: n.ListenPacket}, "f")
		if !errors.Is(r.err, enough) {
			t.Errorf("with a context that had ended: %v", r.err)
		}
	})
}

func TestGetDallies(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true, Dally: 2 * time.Second}, "f")
		p.expect(`RRQ "f" octet`)
		p.data(1, nil)
		p.expect("ACK 1")
		p.expectSilence(time.Second)
		p.data(1, nil)
		p.expect("ACK 1")
		if r := <-done; r.err != nil || r.record.Duplicates != 1 {
			t.Errorf("%v, %v", r.record, r.err)
		}
	})
}

func TestAStrangerAnswersAGet(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := get(t.Context(), &tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true}, "f")
		p.expect(`RRQ "f" octet`)
		other, late := newPeer(t, n, "192.168.7.9:69"), newPeer(t, n, "192.168.7.1:3000")
		other.tid, late.tid = p.tid, p.tid
		other.data(1, []byte("wrong"))
		other.expect(`ERROR 5 "Unknown transfer ID"`)
		p.data(1, content(512))
		p.expect("ACK 1")
		late.data(1, []byte("a second answer")) // the request came twice
		late.expect(`ERROR 5 "Unknown transfer ID"`)
		p.data(2, content(3))
		p.expect("ACK 2")
		if r := <-done; r.err != nil || r.data.Len() != 515 || r.record.Strays != 2 {
			t.Errorf("%+v, %v", r.record, r.err)
		}
	})
}

func TestPutPacketByPacket(t *testing.T) {
	asServer(t, func(t *testing.T, n *network, p *peer) {
		done := make(chan *result, 1)
		go func() {
			r := new(result)
			c := &tftp.Client{ListenPacket: n.ListenPacket, BlockSize: 512, WindowSize: 1}
			r.record, r.err = c.Put(t.Context(), serverPort, "f", bytes.NewReader(content(600)))
			done <- r
		}()
		p.expect(`WRQ "f" octet tsize=600`)
		p.ack(0)
		p.expect("DATA 1 (512 bytes)")
		p.ack(1)
		p.expect("DATA 2 (88 bytes)")
		p.expectSilence(500 * time.Millisecond)
		p.next(time.Second)
		p.ack(2)
		if r := <-done; r.err != nil || r.record.Outcome != tftp.Complete || r.record.Resent != 1 || r.record.TotalSize != 600 {
			t.Errorf("%+v, %v", r.record, r.err)
		}
	})
}

func TestClientRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		client tftp.Client
		server netip.AddrPort
		name   string
		err    string
	}{
		{tftp.Client{}, serverPort, "", `"" is no file name`},
		{tftp.Client{}, serverPort, "a\x00b", "is no file name"},
		{tftp.Client{Mode: "mail"}, serverPort, "f", `mode "mail" is neither octet nor netascii`},
		{tftp.Client{BlockSize: 7}, serverPort, "f", "block size 7 is not within 8 to 65464"},
		{tftp.Client{WindowSize: -1}, serverPort, "f", "window size -1 is not within 1 to 65535"},
		{tftp.Client{}, netip.AddrPort{}, "f", "the server has no address"},
		{tftp.Client{ListenPacket: func(string, string) (net.PacketConn, error) { return nil, errors.New("no network") }}, serverPort, "f", "open the transfer's socket: no network"},
	} {
		record, err := test.client.Get(t.Context(), test.server, test.name, new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), test.err) || record.Outcome != tftp.Failed || record.Err != err {
			t.Errorf("%q: %v, %v", test.name, err, record)
		}
	}
}
