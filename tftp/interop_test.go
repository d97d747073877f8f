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
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	pin "github.com/pin/tftp/v3"

	"github.com/boardspec/boardspec/tftp"
)

// serve runs a server on a free port of the loopback until the test ends.
func serve(t testing.TB, server *tftp.Server) netip.AddrPort {
	t.Helper()
	return serveOn(t, server, "127.0.0.1:0")
}

func serveOn(t testing.TB, server *tftp.Server, address string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, tftp.ErrServerClosed) {
			t.Errorf("Serve returned %v, want ErrServerClosed", err)
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func content(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	return data
}

// settled waits for a server and returns its only transfer.
func settled(t testing.TB, server *tftp.Server) tftp.Transfer {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := server.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	return only(t, server)
}

// packages names the Debian package of each program.
var packages = map[string]string{
	"tftp": "tftp-hpa", "atftp": "atftp", "curl": "curl", "busybox": "busybox",
	"in.tftpd": "tftpd-hpa", "dnsmasq": "dnsmasq-base", "tshark": "tshark", "atftpd": "atftpd",
}

// lookPath returns where a program is; a test without it fails.
func lookPath(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("this test needs %s: apt-get install %s", name, packages[name])
	}
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), lookPath(t, name), args...)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, output)
	}
	return string(output)
}

// program is a TFTP client that is not ours.
type program struct {
	name     string
	smallest int // the smallest file that it can read
	get      func(t *testing.T, addr netip.AddrPort, remote, local string)
	put      func(t *testing.T, addr netip.AddrPort, local, remote string)
}

func host(addr netip.AddrPort) string { return addr.Addr().String() }
func port(addr netip.AddrPort) string { return strconv.Itoa(int(addr.Port())) }

var programs = []program{
	{
		name: "tftp-hpa",
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			run(t, "tftp", "-m", "binary", host(addr), port(addr), "-c", "get", remote, local)
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			run(t, "tftp", "-m", "binary", host(addr), port(addr), "-c", "put", local, remote)
		},
	},
	{
		name: "atftp",
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			run(t, "atftp", "-g", "-r", remote, "-l", local, host(addr), port(addr))
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			run(t, "atftp", "-p", "-r", remote, "-l", local, host(addr), port(addr))
		},
	},
	{
		name: "atftp with blksize 1468 and windowsize 16",
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			run(t, "atftp", "--option", "blksize 1468", "--option", "windowsize 16", "-g", "-r", remote, "-l", local, host(addr), port(addr))
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			run(t, "atftp", "--option", "blksize 1468", "--option", "windowsize 16", "-p", "-r", remote, "-l", local, host(addr), port(addr))
		},
	},
	{
		name:     "curl",
		smallest: 1, // it takes tsize=0 in an OACK for an error
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			run(t, "curl", "-sS", "-o", local, "tftp://"+addr.String()+"/"+remote)
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			run(t, "curl", "-sS", "-T", local, "tftp://"+addr.String()+"/"+remote)
		},
	},
	{
		name: "busybox with blksize 1468",
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			run(t, "busybox", "tftp", "-b", "1468", "-g", "-r", remote, "-l", local, host(addr), port(addr))
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			run(t, "busybox", "tftp", "-b", "1468", "-p", "-r", remote, "-l", local, host(addr), port(addr))
		},
	},
	{
		name: "pin/tftp with blksize 1468",
		get: func(t *testing.T, addr netip.AddrPort, remote, local string) {
			receiver, err := pinClient(t, addr).Receive(remote, "octet")
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Create(local)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := receiver.WriteTo(f); err != nil {
				t.Fatal(err)
			}
		},
		put: func(t *testing.T, addr netip.AddrPort, local, remote string) {
			f, err := os.Open(local)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			sender, err := pinClient(t, addr).Send(remote, "octet")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := sender.ReadFrom(f); err != nil {
				t.Fatal(err)
			}
		},
	},
}

func pinClient(t *testing.T, addr netip.AddrPort) *pin.Client {
	t.Helper()
	client, err := pin.NewClient(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	client.SetBlockSize(1468)
	return client
}

// sizes of files; the last one has more blocks of 512 than a block number can
// count.
func sizes() []int {
	sizes := []int{0, 1, 511, 512, 513, 1468 * 16, 1468*16 + 1, 1 << 20}
	if !testing.Short() {
		sizes = append(sizes, 65537*512)
	}
	return sizes
}

func TestOtherClientsRead(t *testing.T) {
	t.Parallel()
	for _, program := range programs {
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range sizes() {
				if size < program.smallest {
					continue
				}
				want := content(size)
				server := &tftp.Server{FS: fstest.MapFS{"dir/file.bin": {Data: want}}}
				local := filepath.Join(t.TempDir(), "got")
				program.get(t, serve(t, server), "dir/file.bin", local)
				got, err := os.ReadFile(local)
				if err != nil && (size > 0 || !errors.Is(err, fs.ErrNotExist)) { // some make no file of an empty one
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: the client got %d bytes that differ", size, len(got))
				}
				transfer := settled(t, server)
				if transfer.Outcome != tftp.Complete || transfer.Size != int64(size) ||
					transfer.SHA256 != sha256.Sum256(want) || transfer.CRC32 != crc32.ChecksumIEEE(want) {
					t.Errorf("%d bytes: record %+v", size, transfer)
				}
			}
		})
	}
}

func TestOtherClientsWrite(t *testing.T) {
	t.Parallel()
	for _, program := range programs {
		t.Run(program.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range sizes() {
				want := content(size)
				local := filepath.Join(t.TempDir(), "file.bin")
				if err := os.WriteFile(local, want, 0o600); err != nil {
					t.Fatal(err)
				}
				memory := new(tftp.Memory)
				server := &tftp.Server{Create: memory.Create}
				program.put(t, serve(t, server), local, "up.bin")
				transfer := settled(t, server)
				if got, ok := memory.Bytes("up.bin"); !ok || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes: the server got %d bytes that differ (%v)", size, len(got), ok)
				}
				if transfer.Outcome != tftp.Complete || transfer.Size != int64(size) || transfer.SHA256 != sha256.Sum256(want) {
					t.Errorf("%d bytes: record %+v", size, transfer)
				}
			}
		})
	}
}

func TestAtftpIsGrantedItsWindow(t *testing.T) {
	t.Parallel()
	server := &tftp.Server{FS: files("f", 1<<20)}
	addr := serve(t, server)
	run(t, "atftp", "--option", "blksize 1468", "--option", "windowsize 8", "-g", "-r", "f", "-l", filepath.Join(t.TempDir(), "f"), host(addr), port(addr))
	if transfer := settled(t, server); transfer.WindowSize != 8 || transfer.BlockSize != 1468 {
		t.Errorf("record %+v", transfer)
	}
}

func TestOtherClientsReadText(t *testing.T) {
	t.Parallel()
	text := "first line\nsecond line\r and more\n"
	server := &tftp.Server{FS: fstest.MapFS{"f": {Data: []byte(text)}}}
	addr := serve(t, server)
	local := filepath.Join(t.TempDir(), "f")
	run(t, "tftp", "-m", "ascii", host(addr), port(addr), "-c", "get", "f", local)
	if got, err := os.ReadFile(local); err != nil || string(got) != text {
		t.Errorf("got %q, %v", got, err)
	}
	if transfer := settled(t, server); transfer.Mode != "netascii" || transfer.Size != int64(len(text)+3) {
		t.Errorf("record %+v", transfer)
	}
}

// Each program says what went wrong in its own way; the words are the server's.
func TestOtherClientsAreTold(t *testing.T) {
	t.Parallel()
	addr := serve(t, &tftp.Server{FS: fstest.MapFS{}})
	for name, args := range map[string][]string{
		"tftp":    {host(addr), port(addr), "-c", "get", "none", filepath.Join(t.TempDir(), "f")},
		"busybox": {"tftp", "-g", "-r", "none", "-l", filepath.Join(t.TempDir(), "f"), host(addr), port(addr)},
		"atftp":   {"-g", "-r", "none", "-l", filepath.Join(t.TempDir(), "f"), host(addr), port(addr)},
	} {
		output, _ := exec.CommandContext(t.Context(), lookPath(t, name), args...).CombinedOutput() // what they return differs
		if !strings.Contains(strings.ToLower(string(output)), "file not found") {
			t.Errorf("%s says %s", name, output)
		}
	}
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	memory := new(tftp.Memory)
	server := &tftp.Server{FS: files("f", 5000), Create: memory.Create, Peers: []netip.Prefix{netip.MustParsePrefix("::1/128")}}
	addr := serveOn(t, server, "[::1]:0")
	var got bytes.Buffer
	record, err := new(tftp.Client).Get(t.Context(), addr, "f", &got)
	if err != nil || !bytes.Equal(got.Bytes(), content(5000)) || !record.Peer.Addr().Is6() {
		t.Errorf("%v, %v", record, err)
	}
	if _, err := new(tftp.Client).Put(t.Context(), addr, "g", bytes.NewReader(content(5000))); err != nil {
		t.Error(err)
	}
	local := filepath.Join(t.TempDir(), "f")
	run(t, "curl", "-sS", "-o", local, "tftp://"+addr.String()+"/f")
	if got, err := os.ReadFile(local); err != nil || !bytes.Equal(got, content(5000)) {
		t.Errorf("curl got %d bytes, %v", len(got), err)
	}
}

// A server on all addresses takes IPv4 and IPv6, and records IPv4 as such.
func TestBothFamilies(t *testing.T) {
	t.Parallel()
	server := &tftp.Server{FS: files("f", 5000), Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	addr := serveOn(t, server, "[::]:0")
	for _, host := range []string{"127.0.0.1", "::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(host), addr.Port())
		record, err := new(tftp.Client).Get(t.Context(), to, "f", io.Discard)
		if err != nil {
			t.Errorf("%s: %v, %v", host, record, err)
		}
	}
	for i, transfer := range server.Transfers() {
		if transfer.Peer.Addr().Is4() != (i == 0) {
			t.Errorf("record %v", transfer)
		}
	}
}

// otherServer starts a server that is not ours, in the foreground, and returns
// its address.
type otherServer struct {
	name   string
	writes bool
	start  func(t testing.TB, dir string) netip.AddrPort
}

// pinWrote holds a token for each file that pin/tftp has written: it
// acknowledges the last block before that.
var pinWrote = make(chan struct{}, 1024)

var otherServers = []otherServer{
	{name: "tftpd-hpa", writes: true, start: startHPA},
	{name: "dnsmasq", start: startDnsmasq},
	{name: "pin", writes: true, start: startPin},
}

// freePort returns a port that no one listens on. It may be taken before it is
// used; the program then says so.
func freePort(t testing.TB, address string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// asRoot keeps a test that needs root from one that has not.
func asRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	message := "this test changes its user, listens on port 69 or mounts, which needs root: sudo go test"
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// startProgram starts a server and waits until it answers.
func startProgram(t testing.TB, addr netip.AddrPort, name string, args ...string) netip.AddrPort {
	t.Helper()
	return startCommand(t, addr, exec.Command(lookPath(t, name), args...))
}

// startCommand starts a server and waits until it answers.
func startCommand(t testing.TB, addr netip.AddrPort, command *exec.Cmd) netip.AddrPort {
	t.Helper()
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		command.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		command.Process.Kill()
		<-ended
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	// An answer of any kind says that it is up; until then the request is sent
	// again.
	probe := &tftp.Client{Timeout: 50 * time.Millisecond, GiveUp: 20 * time.Second, NoOptions: true}
	_, err := probe.Get(ctx, addr, "no-such-file", io.Discard)
	var answer *tftp.PeerError
	if !errors.As(err, &answer) {
		command.Process.Kill()
		<-ended
		t.Fatalf("%v does not answer: %v\n%s", command, err, &output)
	}
	return addr
}

func startHPA(t testing.TB, dir string) netip.AddrPort {
	asRoot(t)
	if version, _ := exec.Command(lookPath(t, "in.tftpd"), "-V").CombinedOutput(); !bytes.Contains(version, []byte("tftp-hpa")) {
		t.Fatal("in.tftpd is another program: apt-get install tftpd-hpa (it conflicts with atftpd)")
	}
	addr := freePort(t, "127.0.0.1")
	return startProgram(t, addr, "in.tftpd", "-L", "-c", "-u", "root", "-a", addr.String(), "-s", dir)
}

// dnsmasq has no option for the port: it gets an address of the loopback of its
// own.
func startDnsmasq(t testing.TB, dir string) netip.AddrPort {
	asRoot(t)
	pid := os.Getpid()
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 69, byte(pid >> 8), byte(pid)}), 69)
	return startProgram(t, addr, "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=",
		"--listen-address="+host(addr), "--bind-interfaces", "--enable-tftp", "--tftp-root="+dir)
}

// pinServer is a server of pin/tftp on a directory.
func pinServer(dir string) *pin.Server {
	return pin.NewServer(
		func(name string, to io.ReaderFrom) error {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			to.(pin.OutgoingTransfer).SetSize(info.Size())
			_, err = to.ReadFrom(f)
			return err
		},
		func(name string, from io.WriterTo) error {
			f, err := os.Create(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = from.WriteTo(f)
			pinWrote <- struct{}{}
			return err
		})
}

func startPin(t testing.TB, dir string) netip.AddrPort {
	server := pinServer(dir)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		server.Serve(conn)
		close(done)
	}()
	t.Cleanup(func() {
		server.Shutdown()
		<-done
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestClientAgainstOtherServers(t *testing.T) {
	t.Parallel()
	for _, other := range otherServers {
		t.Run(other.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			addr := other.start(t, dir)
			for _, size := range sizes() {
				want := content(size)
				name := fmt.Sprintf("file-%d", size)
				if err := os.WriteFile(filepath.Join(dir, name), want, 0o644); err != nil {
					t.Fatal(err)
				}
				clients := map[string]*tftp.Client{"its defaults": {}, "blocks of 512": {BlockSize: 512}, "no options": {NoOptions: true}}
				if size > 1<<20 {
					delete(clients, "no options") // the same as blocks of 512
				}
				for kind, client := range clients {
					var got bytes.Buffer
					record, err := client.Get(t.Context(), addr, name, &got)
					if err != nil || !bytes.Equal(got.Bytes(), want) || record.SHA256 != sha256.Sum256(want) {
						t.Fatalf("%d bytes, %s: %d bytes, %v, %v", size, kind, got.Len(), record, err)
					}
					if !other.writes {
						continue
					}
					record, err = client.Put(t.Context(), addr, "up-"+name, bytes.NewReader(want))
					if err != nil {
						t.Fatalf("%d bytes, %s: %v, %v", size, kind, record, err)
					}
					if other.name == "pin" {
						<-pinWrote
					}
					if got, err := os.ReadFile(filepath.Join(dir, "up-"+name)); err != nil || !bytes.Equal(got, want) {
						t.Fatalf("%d bytes, %s: %d bytes were stored, %v", size, kind, len(got), err)
					}
				}
			}
			_, err := new(tftp.Client).Get(t.Context(), addr, "none", io.Discard)
			if err == nil || !strings.Contains(err.Error(), "none") {
				t.Errorf("of a missing file: %v", err)
			}
		})
	}
}
