package tftp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

const benchSize = 8 << 20

// The servers of BenchmarkRead that are Go programs run in a process of their
// own, as the others do: this test binary, started again with the name in its
// environment.
const serveVariable = "TFTP_BENCH_SERVE"

func TestMain(m *testing.M) {
	if which := os.Getenv(serveVariable); which != "" {
		serveForBench(which, os.Args[1], os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// serveForBench serves a directory until its standard input ends.
func serveForBench(which, address, dir string) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		panic(err)
	}
	switch which {
	case "boardspec":
		server := &tftp.Server{FS: os.DirFS(dir), MaxWindowSize: 64}
		go server.Serve(conn)
	case "pin":
		go pinServer(dir).Serve(conn)
	}
	io.Copy(io.Discard, os.Stdin)
}

// startSelf starts this binary as a server.
func startSelf(which string) func(testing.TB, string) netip.AddrPort {
	return func(b testing.TB, dir string) netip.AddrPort {
		b.Helper()
		addr := freePort(b, "127.0.0.1")
		command := exec.Command(os.Args[0], addr.String(), dir)
		command.Env = append(os.Environ(), serveVariable+"="+which)
		input, err := command.StdinPipe() // its end is the server's
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { input.Close() })
		return startCommand(b, addr, command)
	}
}

func startAtftpd(b testing.TB, dir string) netip.AddrPort {
	asRoot(b)
	addr := freePort(b, "127.0.0.1")
	return startProgram(b, addr, "atftpd", "--daemon", "--no-fork", "--user", "root", "--group", "root", "--logfile", "/dev/null",
		"--bind-address", host(addr), "--port", port(addr), dir)
}

// lean is a client that does as little as a client can: it acknowledges, and
// counts bytes. It is the same for all servers.
type lean struct {
	conn   datagramConn
	packet []byte
	ack    [4]byte
}

func newLean(b testing.TB, network string) *lean {
	b.Helper()
	conn, err := net.ListenUDP(network, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		b.Fatal(err)
	}
	return &lean{conn: conn, packet: make([]byte, 65536)}
}

// datagramConn is what a *net.UDPConn and a connection under faults have in
// common.
type datagramConn interface {
	ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
}

// get reads a file once and returns its size.
func (l *lean) get(server netip.AddrPort, name string, blockSize, window int) (int64, error) {
	request := []byte("\x00\x01" + name + "\x00octet\x00blksize\x00" + strconv.Itoa(blockSize) + "\x00")
	if window > 1 {
		request = append(request, "windowsize\x00"+strconv.Itoa(window)+"\x00"...)
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := l.conn.WriteToUDPAddrPort(request, server); err != nil {
		return 0, err
	}
	binary.BigEndian.PutUint16(l.ack[:], 4)
	var size int64
	last, acked := 0, 0
	var tid netip.AddrPort
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(l.packet)
		if err != nil {
			return size, fmt.Errorf("after block %d: %w", last, err)
		}
		if tid.IsValid() && from != tid {
			continue // of the transfer before
		}
		tid = from
		switch l.packet[1] {
		case 6:
			if window > 1 && n < len("\x00\x06blksize\x001468\x00windowsize\x001\x00") {
				return 0, errors.New("the server grants no windowsize")
			}
			if err := l.acknowledge(0, from); err != nil {
				return 0, err
			}
		case 3:
			if binary.BigEndian.Uint16(l.packet[2:]) != uint16(last+1) {
				continue
			}
			last++
			size += int64(n - 4)
			if end := n-4 < blockSize; end || last-acked == window {
				acked = last
				if err := l.acknowledge(last, from); err != nil || end {
					return size, err
				}
			}
		default:
			return size, fmt.Errorf("the server sent %s", words(l.packet[:n]))
		}
	}
}

func (l *lean) acknowledge(block int, to netip.AddrPort) error {
	binary.BigEndian.PutUint16(l.ack[2:], uint16(block))
	_, err := l.conn.WriteToUDPAddrPort(l.ack[:], to)
	return err
}

// benchServers are the servers that are compared, ours first.
var benchServers = []struct {
	name    string
	windows bool
	start   func(testing.TB, string) netip.AddrPort
}{
	{"boardspec", true, startSelf("boardspec")},
	{"tftpd-hpa", false, startHPA},
	{"atftpd", true, startAtftpd},
	{"dnsmasq", false, startDnsmasq},
	{"pin", false, startSelf("pin")},
}

// BenchmarkRead reads a file of 8 MiB over the loopback with blocks of 1468
// bytes. Every server is a process of its own, the client is the same.
func BenchmarkRead(b *testing.B) {
	for _, window := range []int{1, 16} {
		for _, server := range benchServers {
			if window > 1 && !server.windows {
				continue
			}
			b.Run(fmt.Sprintf("window=%d/server=%s", window, server.name), func(b *testing.B) {
				dir := b.TempDir()
				if err := os.WriteFile(filepath.Join(dir, "file"), content(benchSize), 0o644); err != nil {
					b.Fatal(err)
				}
				addr := server.start(b, dir)
				client := newLean(b, "udp4")
				b.SetBytes(benchSize)
				for b.Loop() {
					if n, err := client.get(addr, "file", 1468, window); err != nil || n != benchSize {
						b.Fatalf("%d bytes, %v", n, err)
					}
				}
			})
		}
	}
}

// farVariable, set to netem, says that the loopback itself takes half a
// millisecond each way: ci/bench sees to that where the kernel can.
const farVariable = "BOARDSPEC_BENCH_FAR"

// BenchmarkReadFromAfar reads over a line that takes half a millisecond each
// way, or what the system's timers make of it: the same for all.
func BenchmarkReadFromAfar(b *testing.B) {
	const size = 1 << 20
	for _, c := range []struct {
		window, server int
	}{{1, 0}, {1, 1}, {16, 0}} {
		server := benchServers[c.server]
		b.Run(fmt.Sprintf("window=%d/server=%s", c.window, server.name), func(b *testing.B) {
			dir := b.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), content(size), 0o644); err != nil {
				b.Fatal(err)
			}
			addr := server.start(b, dir)
			client := newLean(b, "udp4")
			if os.Getenv(farVariable) != "netem" {
				line := &tftp.Faults{Script: []tftp.Fault{{Do: tftp.Delay(500 * time.Microsecond)}}}
				far := line.Wrap(client.conn.(net.PacketConn))
				defer far.Close()
				client.conn = far.(datagramConn)
			}
			b.SetBytes(size)
			for b.Loop() {
				if n, err := client.get(addr, "file", 1468, c.window); err != nil || n != size {
					b.Fatalf("%d bytes, %v", n, err)
				}
			}
		})
	}
}

// BenchmarkWrite writes a file of 8 MiB over the loopback, with our client.
func BenchmarkWrite(b *testing.B) {
	for _, window := range []int{1, 16} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			addr := serve(b, &tftp.Server{Create: discard})
			client := &tftp.Client{WindowSize: window}
			data := content(benchSize)
			b.SetBytes(benchSize)
			for b.Loop() {
				if _, err := client.Put(b.Context(), addr, "file", bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParallel reads 64 files of 1 MiB at once.
func BenchmarkParallel(b *testing.B) {
	addr := serve(b, &tftp.Server{FS: files("f", 1<<20)})
	b.SetBytes(64 << 20)
	for b.Loop() {
		if err := together(b.Context(), 64, addr); err != nil {
			b.Fatal(err)
		}
	}
}
