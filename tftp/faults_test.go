package tftp_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boardspec/boardspec/tftp"
)

func TestFaults(t *testing.T) {
	const window1 = "DATA 1 (512 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes)"
	for _, test := range []struct {
		name   string
		script []tftp.Fault
		ask    []string // options
		want   string   // what the client gets within 1.5 s, acknowledging with each block the last one in order
		record []string
	}{
		{name: "none", want: window1},
		{name: "drop the second block", script: []tftp.Fault{{Kind: tftp.OpData, Nth: 2, Do: tftp.Drop()}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes) after 1s|DATA 3 (176 bytes)", record: []string{"sent DATA 2 (512 bytes): dropped"}},
		{name: "drop by block", script: []tftp.Fault{{Kind: tftp.OpData, Block: 1, Nth: 1, Do: tftp.Drop()}},
			want: "DATA 1 (512 bytes) after 1s|DATA 2 (512 bytes)|DATA 3 (176 bytes)", record: []string{"sent DATA 1 (512 bytes): dropped"}},
		{name: "drop an ACK", script: []tftp.Fault{{Kind: tftp.OpAck, Block: 1, Nth: 1, Do: tftp.Drop()}},
			want: "DATA 1 (512 bytes)|DATA 1 (512 bytes) after 1s|DATA 2 (512 bytes)|DATA 3 (176 bytes)", record: []string{"received ACK 1: dropped"}},
		{name: "drop what fits a condition", script: []tftp.Fault{{Direction: tftp.Sent, If: func(p []byte) bool { return len(p) == 4+176 }, Nth: 1, Do: tftp.Drop()}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes) after 1s", record: []string{"sent DATA 3 (176 bytes): dropped"}},
		{name: "every second", script: []tftp.Fault{{Kind: tftp.OpData, Every: 2, Do: tftp.Truncate(4 + 7)}},
			want: "DATA 1 (512 bytes)|DATA 2 (7 bytes)|DATA 3 (176 bytes)", record: []string{"sent DATA 2 (512 bytes): truncated to 11 bytes"}},
		{name: "duplicate", script: []tftp.Fault{{Kind: tftp.OpData, Nth: 1, Do: tftp.Duplicate()}},
			want: "DATA 1 (512 bytes)|DATA 1 (512 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes)", record: []string{"sent DATA 1 (512 bytes): duplicated"}},
		{name: "delay", script: []tftp.Fault{{Kind: tftp.OpData, Nth: 2, Do: tftp.Delay(300 * time.Millisecond)}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes) after 300ms|DATA 3 (176 bytes)", record: []string{"sent DATA 2 (512 bytes): delayed by 300ms"}},
		{name: "delay of an ACK", script: []tftp.Fault{{Kind: tftp.OpAck, Nth: 1, Do: tftp.Delay(300 * time.Millisecond)}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes) after 300ms|DATA 3 (176 bytes)", record: []string{"received ACK 1: delayed by 300ms"}},
		{name: "delay holds the order", ask: []string{"windowsize", "2"}, script: []tftp.Fault{{Kind: tftp.OpData, Nth: 1, Do: tftp.Delay(300 * time.Millisecond)}},
			want: "OACK windowsize=2|DATA 1 (512 bytes) after 300ms|DATA 2 (512 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes)|DATA 3 (176 bytes)", record: []string{"sent DATA 1 (512 bytes): delayed by 300ms"}},
		{name: "reorder", ask: []string{"windowsize", "3"}, script: []tftp.Fault{{Kind: tftp.OpData, Nth: 1, Do: tftp.Reorder(2)}},
			want: "OACK windowsize=3|DATA 2 (512 bytes)|DATA 3 (176 bytes)|DATA 1 (512 bytes)|" + // the client acknowledges 0, 0, 1
				"DATA 1 (512 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes)|DATA 2 (512 bytes)|DATA 3 (176 bytes)|DATA 3 (176 bytes)",
			record: []string{"sent DATA 1 (512 bytes): overtaken by 2"}},
		{name: "bad option values", ask: []string{"blksize", "600"}, script: []tftp.Fault{{Kind: tftp.OpOAck, Do: tftp.SetOption("blksize", "9000")}, {Kind: tftp.OpOAck, Do: tftp.SetOption("timeout", "9")}},
			want:   "OACK blksize=9000 timeout=9|DATA 1 (600 bytes)|DATA 2 (600 bytes)|DATA 3 (0 bytes)",
			record: []string{"sent OACK blksize=600: given option blksize=9000", "sent OACK blksize=600: given option timeout=9"}},
		{name: "another opcode", script: []tftp.Fault{{Kind: tftp.OpData, Nth: 3, Do: tftp.SetOpcode(9)}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes)|Op(9) (malformed, 180 bytes)|DATA 3 (176 bytes) after 1s", record: []string{"sent DATA 3 (176 bytes): given opcode 9"}},
		{name: "another block number", script: []tftp.Fault{{Kind: tftp.OpData, Nth: 3, Do: tftp.SetBlock(700)}},
			want: "DATA 1 (512 bytes)|DATA 2 (512 bytes)|DATA 700 (176 bytes)|DATA 3 (176 bytes) after 1s", record: []string{"sent DATA 3 (176 bytes): given block number 700"}},
		{name: "an error at a block", script: []tftp.Fault{{Kind: tftp.OpData, Block: 2, Do: tftp.Fail(3, "disk gone")}},
			want: `DATA 1 (512 bytes)|ERROR 3 "disk gone"`, record: []string{"sent DATA 2 (512 bytes): answered by error 3"}},
		{name: "an error at an ACK", script: []tftp.Fault{{Kind: tftp.OpAck, Block: 2, Do: tftp.Fail(7, "who are you")}},
			want: `DATA 1 (512 bytes)|DATA 2 (512 bytes)|ERROR 7 "who are you"`, record: []string{"received ACK 2: answered by error 7"}},
		{name: "an error at the request", script: []tftp.Fault{{Kind: tftp.OpRead, Do: tftp.Fail(0, "not today")}}, want: `ERROR 0 "not today"`},
		{name: "no answer to the request", script: []tftp.Fault{{Kind: tftp.OpRead, Do: tftp.Drop()}}, want: ""},
		{name: "silence from a block on", script: []tftp.Fault{{Kind: tftp.OpData, Block: 2, Do: tftp.Silence()}}, want: "DATA 1 (512 bytes)",
			record: []string{"sent DATA 2 (512 bytes): lost in silence from here on"}},
		{name: "death at a block", script: []tftp.Fault{{Kind: tftp.OpData, Block: 2, Do: tftp.Die()}}, want: "DATA 1 (512 bytes)",
			record: []string{"sent DATA 2 (512 bytes): not sent: this side died"}},
		{name: "death at an ACK", script: []tftp.Fault{{Kind: tftp.OpAck, Block: 2, Do: tftp.Die()}}, want: "DATA 1 (512 bytes)|DATA 2 (512 bytes)",
			record: []string{"received ACK 2: not sent: this side died"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			faults := &tftp.Faults{Script: test.script}
			server := &tftp.Server{FS: files("f", 1200), Faults: faults}
			withServer(t, server, func(t *testing.T, _ *network, p *peer) {
				p.request(tftp.OpRead, "f", "octet", test.ask...)
				got := strings.Join(follow(p, 1500*time.Millisecond), "|")
				if got != test.want {
					t.Errorf("got  %s\nwant %s", got, test.want)
				}
				if test.record == nil {
					return
				}
				if diff := cmp.Diff(test.record, faults.Happened()); diff != "" {
					t.Errorf("what happened differs (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(test.record, server.Transfers()[0].Faults); diff != "" {
					t.Errorf("the record differs (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// follow plays a client that acknowledges what comes in order, and returns the
// packets it got until nothing came for a while.
func follow(p *peer, patience time.Duration) []string {
	var got []string
	next := 1
	for {
		begin := time.Now()
		text := p.next(patience)
		if text == "nothing" {
			return got
		}
		var block, size int
		if _, err := fmt.Sscanf(text, "DATA %d (%d bytes)", &block, &size); err == nil {
			if block == next {
				next++
			}
			p.ack(uint16(next - 1))
		} else if strings.HasPrefix(text, "OACK") {
			p.ack(0)
		}
		if took := time.Since(begin).Round(10 * time.Millisecond); took > 0 {
			text += fmt.Sprintf(" after %v", took)
		}
		got = append(got, text)
	}
}

func TestFaultsOfTheWrongTID(t *testing.T) {
	server := &tftp.Server{FS: files("f", 600), Faults: &tftp.Faults{Script: []tftp.Fault{{Kind: tftp.OpData, Block: 2, Nth: 1, Do: tftp.WrongTID()}}}}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		var got bytes.Buffer
		record, err := (&tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true}).Get(t.Context(), serverPort, "f", &got)
		if err != nil || record.Strays != 1 || got.Len() != 600 {
			t.Errorf("%+v, %v", record, err)
		}
	})
}

func TestFaultsOnTheClientsSide(t *testing.T) {
	server := &tftp.Server{FS: files("f", 600)}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		client := &tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true, Faults: &tftp.Faults{Script: []tftp.Fault{
			{Kind: tftp.OpRead, Nth: 1, Do: tftp.Drop()},
			{Kind: tftp.OpData, Block: 1, Do: tftp.Duplicate()},
			{Kind: tftp.OpAck, Block: 2, Do: tftp.Drop()},
		}}}
		var got bytes.Buffer
		record, err := client.Get(t.Context(), serverPort, "f", &got)
		if err != nil || got.Len() != 600 || record.Resent < 1 || record.Duplicates != 1 {
			t.Errorf("%+v, %v", record, err)
		}
		want := []string{`sent RRQ "f" octet: dropped`, "received DATA 1 (512 bytes): duplicated", "sent ACK 2: dropped"}
		if diff := cmp.Diff(want, record.Faults); diff != "" {
			t.Errorf("the record differs (-want +got):\n%s", diff)
		}
		p.expectSilence(time.Minute)
		if transfer := only(t, server); transfer.Outcome != tftp.Unconfirmed || transfer.Size != 512 {
			t.Errorf("the server's record: %+v", transfer)
		}
	})
}

// Corruption that UDP's checksum does not find cannot be seen by TFTP; the two
// records show it.
func TestCorruptionShowsInTheRecords(t *testing.T) {
	server := &tftp.Server{FS: files("f", 6000), Faults: &tftp.Faults{Seed: 7, Script: []tftp.Fault{{Kind: tftp.OpData, Nth: 2, Do: tftp.Corrupt()}}}}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		var got bytes.Buffer
		record, err := (&tftp.Client{ListenPacket: n.ListenPacket}).Get(t.Context(), serverPort, "f", &got)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		different := 0
		for i, b := range content(6000) {
			if got.Bytes()[i] != b {
				different++
			}
		}
		if different != 1 || only(t, server).SHA256 == record.SHA256 || only(t, server).CRC32 == record.CRC32 {
			t.Errorf("%d bytes differ; %x on the server's side, %x on the client's", different, only(t, server).CRC32, record.CRC32)
		}
	})
}

// The same seed gives the same faults, another seed others.
func TestChanceFollowsTheSeed(t *testing.T) {
	t.Parallel()
	play := func(t *testing.T, seed uint64) (happened []string) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			faults := &tftp.Faults{Seed: seed, Script: []tftp.Fault{
				{Kind: tftp.OpData, Probability: 0.2, Do: tftp.Drop()},
				{Kind: tftp.OpAck, Probability: 0.2, Do: tftp.Duplicate()},
			}}
			server := &tftp.Server{FS: files("f", 20000), Faults: faults, ListenPacket: n.ListenPacket}
			conn, _ := n.ListenPacket("udp", serverPort.String())
			served := make(chan error)
			go func() { served <- server.Serve(conn) }()
			if _, err := (&tftp.Client{ListenPacket: n.ListenPacket, NoOptions: true}).Get(t.Context(), serverPort, "f", new(bytes.Buffer)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-served
			happened = faults.Happened()
		})
		return happened
	}
	one, again, other := play(t, 1), play(t, 1), play(t, 2)
	if diff := cmp.Diff(one, again); diff != "" {
		t.Errorf("the same seed differs:\n%s", diff)
	}
	if len(one) < 5 || cmp.Equal(one, other) {
		t.Errorf("seed 1: %q, seed 2: %q", one, other)
	}
}

// Faults go around any packet connection, and Close leaves none of them behind.
func TestFaultsAroundAConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		faults := &tftp.Faults{Script: []tftp.Fault{{Direction: tftp.Sent, Do: tftp.Delay(time.Second)}, {Nth: 2, Do: tftp.Duplicate()}}}
		listen := faults.Listen(n.ListenPacket)
		one, err := listen("udp", "192.168.7.1:1000")
		if err != nil {
			t.Fatal(err)
		}
		two := newPeer(t, n, "192.168.7.2:1000")
		begin := time.Now()
		for _, text := range []string{"\x00\x04\x00\x01", "\x00\x04\x00\x02"} {
			if _, err := one.WriteTo([]byte(text), net.UDPAddrFromAddrPort(two.conn.(*memConn).local)); err != nil {
				t.Fatal(err)
			}
		}
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Close waited %v for what was delayed", took)
		}
		two.expect("ACK 1", "ACK 2", "ACK 2", "nothing")
		if _, _, err := one.ReadFrom(make([]byte, 10)); err == nil {
			t.Error("a closed connection can be read")
		}
		two.conn.Close()
		if open := n.open(); open != 0 {
			t.Errorf("%d connections are open", open)
		}
	})
}

// A thousand transfers under a script leave neither goroutine nor socket: the
// bubble would not end.
func TestFaultsInManyTransfers(t *testing.T) {
	server := &tftp.Server{
		FS:     fstest.MapFS{"f": {Data: content(3000)}},
		Faults: &tftp.Faults{Seed: 1, Script: []tftp.Fault{{Probability: 0.05, Do: tftp.Drop()}}},
	}
	withServer(t, server, func(t *testing.T, n *network, p *peer) {
		for range 200 {
			var got bytes.Buffer
			if _, err := (&tftp.Client{ListenPacket: n.ListenPacket}).Get(t.Context(), serverPort, "f", &got); err != nil || got.Len() != 3000 {
				t.Error(err)
			}
		}
	})
}
