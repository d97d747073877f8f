package tftp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// datagrams cuts fuzz input into packets: each is a length (two bytes,
// big-endian) and so many bytes, as far as they go; the high bit of the length
// says that it comes from a second client.
func datagrams(input []byte) (packets [][]byte, second []bool) {
	for len(input) >= 2 && len(packets) < 64 {
		length := binary.BigEndian.Uint16(input)
		n := min(int(length&0x7fff), len(input)-2)
		packets, second = append(packets, input[2:2+n]), append(second, length&0x8000 != 0)
		input = input[2+n:]
	}
	return packets, second
}

// join is the other way around, for seeds.
func join(packets ...string) []byte {
	var input []byte
	for _, p := range packets {
		input = append(binary.BigEndian.AppendUint16(input, uint16(len(p))), p...)
	}
	return input
}

// canary is an fs.FS that tells of each name that it is asked for and that
// does not stay within it.
type canary struct {
	fs.FS
	t *testing.T
}

func (c canary) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) || strings.HasPrefix(name, "../") {
		c.t.Errorf("the server opens %q", name)
	}
	return c.FS.Open(name)
}

// FuzzServer sends a server any sequence of packets, to its own port as long as
// it has not answered and to the transfer's port after that. It must not panic,
// keep a goroutine or a socket (the bubble would not end), leave the tree, or
// answer with what is no packet.
func FuzzServer(f *testing.F) {
	f.Add(join("\x00\x01f\x00octet\x00", "\x00\x04\x00\x01", "\x00\x04\x00\x02", "\x00\x04\x00\x03"), false)
	f.Add(join("\x00\x01f\x00octet\x00blksize\x008\x00windowsize\x004\x00timeout\x001\x00tsize\x000\x00", "\x00\x04\x00\x00", "\x00\x04\x00\x02", "\x00\x04\x00\x02"), true)
	f.Add(join("\x00\x02g\x00netascii\x00tsize\x005\x00", "\x00\x03\x00\x01a\r\nb\r", "\x00\x03\x00\x01a\r\nb\r"), false)
	f.Add(join("\x00\x02g\x00octet\x00windowsize\x003\x00blksize\x008\x00", "\x00\x03\x00\x0112345678", "\x00\x03\x00\x0312345678", "\x00\x03\x00\x0212345678"), true)
	f.Add(join("\x00\x01../../etc/passwd\x00octet\x00", "\x00\x02/../x\x00octet\x00", "\x00\x01..\\..\\x\x00octet\x00"), false)
	// A request whose options are as long as the server's answer must hold: the
	// end of another server.
	f.Add(join("\x00\x01f\x00octet\x00blksize\x00"+strings.Repeat("0", 480)+"512\x00tsize\x000\x00"), false)
	f.Add(join("\x00\x05\x00\x00bye\x00", "\x00\x06tsize\x001\x00", "", "\x00"), false)
	f.Add(join("\x00\x01f\x00octet\x00", "\x00\x01f\x00octet\x00", "\x00\x01g\x00octet\x00", "\x00\x02f\x00octet\x00"), false)
	f.Fuzz(func(t *testing.T, input []byte, singlePort bool) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			memory := &tftp.Memory{Overwrite: true}
			server := &tftp.Server{
				FS: canary{fstest.MapFS{"f": {Data: content(1200)}}, t}, Create: memory.Create,
				SinglePort: singlePort, MaxUpload: 1 << 16, ListenPacket: n.ListenPacket, MaxTransfers: 8,
			}
			conn, err := n.ListenPacket("udp", serverPort.String())
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve(conn) }()
			clients := []*peer{newPeer(t, n, "192.168.7.2:1069"), newPeer(t, n, "192.168.7.2:1070")}
			packets, second := datagrams(input)
			for i, packet := range packets {
				p := clients[0]
				if second[i] {
					p = clients[1]
				}
				if op := binary.BigEndian.Uint16(append(append([]byte(nil), packet...), 0, 0)); op == 1 || op == 2 {
					p.tid = serverPort
				}
				p.send(packet)
				for {
					text := p.next(time.Microsecond)
					if text == "nothing" {
						break
					}
					if strings.Contains(text, "malformed") || strings.HasPrefix(text, "Op(") {
						t.Errorf("the server answers %s", text)
					}
				}
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; !errors.Is(err, tftp.ErrServerClosed) {
				t.Error(err)
			}
			complete := make(map[string]bool)
			for _, transfer := range server.Transfers() {
				if transfer.Outcome == tftp.Complete {
					name, err := tftp.Request{Filename: transfer.Filename}.Name()
					if err != nil {
						t.Errorf("complete: %v", err)
					}
					complete[name] = true
				}
				if transfer.Outcome == tftp.Running || (transfer.Err == nil) != (transfer.Outcome == tftp.Complete) {
					t.Errorf("record %v", transfer)
				}
			}
			for _, name := range memory.Names() {
				if !fs.ValidPath(name) || !complete[name] {
					t.Errorf("%q was stored; complete are %v", name, complete)
				}
			}
			for _, p := range clients {
				p.conn.Close()
			}
			if open := n.open(); open != 0 {
				t.Errorf("%d connections are open", open)
			}
		})
	})
}

// FuzzClient answers a client's request with any sequence of packets.
func FuzzClient(f *testing.F) {
	f.Add(join("\x00\x03\x00\x01short"), false)
	f.Add(join("\x00\x06blksize\x008\x00windowsize\x002\x00tsize\x0010\x00", "\x00\x03\x00\x0112345678", "\x00\x03\x00\x029a"), false)
	f.Add(join("\x00\x06tsize\x00700\x00", "\x00\x04\x00\x00", "\x00\x04\x00\x01", "\x00\x04\x00\x02"), true)
	f.Add(join("\x00\x04\x00\x00", "\x00\x04\x00\x01", "\x00\x04\x00\x02"), true)
	f.Add(join("\x00\x05\x00\x01no"), false)
	f.Add(join("\x00\x06blksize\x0099999999999999999999\x00"), false)
	f.Fuzz(func(t *testing.T, input []byte, write bool) {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			server := newPeer(t, n, serverPort.String())
			client := &tftp.Client{ListenPacket: n.ListenPacket}
			done := make(chan error, 1)
			go func() {
				var record tftp.Transfer
				var err error
				var got bytes.Buffer
				if write {
					record, err = client.Put(t.Context(), serverPort, "f", bytes.NewReader(content(700)))
				} else {
					record, err = client.Get(t.Context(), serverPort, "f", &got)
				}
				if (err == nil) != (record.Outcome == tftp.Complete) || err == nil && !write && int64(got.Len()) != record.Size {
					t.Errorf("%d bytes, %v, %v", got.Len(), record, err)
				}
				done <- err
			}()
			server.next(time.Second)
			packets, _ := datagrams(input)
			for _, packet := range packets {
				server.send(packet)
				for server.next(time.Microsecond) != "nothing" {
				}
			}
			server.conn.Close()
			<-done
			if open := n.open(); open != 0 {
				t.Errorf("%d connections are open", open)
			}
		})
	})
}

// FuzzPacket parses any packet for its description, which leaves it as it is.
func FuzzPacket(f *testing.F) {
	f.Add([]byte("\x00\x01f\x00octet\x00blksize\x001468\x00"))
	f.Add([]byte("\x00\x05\x00\x01File not found\x00"))
	f.Add([]byte("\x00\x06tsize\x000\x00"))
	f.Add([]byte("\x00\x03\x00\x01data"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		at := netip.MustParseAddrPort("127.0.0.1:69")
		before := append([]byte(nil), packet...)
		text := tftp.Packet{Local: at, Peer: at, Data: packet}.String()
		if !strings.HasPrefix(text, "127.0.0.1:69 < 127.0.0.1:69 ") || !bytes.Equal(before, packet) {
			t.Errorf("%q is described as %s", packet, text)
		}
	})
}
