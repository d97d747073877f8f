package pcapng_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/boardspec/boardspec/tftp"
	"github.com/boardspec/boardspec/tftp/pcapng"
)

// Wireshark's dissector reads a capture: request, options, blocks and
// acknowledgements, with their checksums right.
func TestTsharkReadsACapture(t *testing.T) {
	t.Parallel()
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Fatal("this test needs tshark: apt-get install tshark")
	}
	for name, test := range map[string]struct {
		listen string
		server string
	}{
		"IPv4":                  {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":                  {"[::1]:0", "::1"},
		"IPv4 on all addresses": {"[::]:0", "127.0.0.1"},
		"IPv6 on all addresses": {"[::]:0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file, err := os.Create(filepath.Join(t.TempDir(), "capture.pcapng"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			capture, err := pcapng.NewWriter(file)
			if err != nil {
				t.Fatal(err)
			}
			memory := new(tftp.Memory)
			server := &tftp.Server{
				FS: fstest.MapFS{"uImage": {Data: make([]byte, 2000)}}, Create: memory.Create, Trace: capture.Packet,
			}
			conn, err := net.ListenPacket("udp", test.listen)
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve(conn) }()
			addr := netip.AddrPortFrom(netip.MustParseAddr(test.server), conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
			client := &tftp.Client{WindowSize: 1}
			if _, err := client.Get(t.Context(), addr, "uImage", io.Discard); err != nil {
				t.Error(err)
			}
			if err := server.Settled(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := client.Put(t.Context(), addr, "log", bytes.NewReader(make([]byte, 100))); err != nil {
				t.Error(err)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-served
			if err := capture.Flush(); err != nil {
				t.Fatal(err)
			}
			port := strings.TrimPrefix(addr.String(), addr.Addr().String()+":")
			if addr.Addr().Is6() {
				port = strings.TrimPrefix(addr.String(), "["+addr.Addr().String()+"]:")
			}
			command := exec.Command(tshark, "-r", file.Name(), "-d", "udp.port=="+port+",tftp",
				"-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
				"-T", "fields", "-E", "separator=|", "-e", "tftp.opcode", "-e", "tftp.source_file", "-e", "tftp.destination_file",
				"-e", "tftp.option.name", "-e", "tftp.option.value", "-e", "tftp.block", "-e", "udp.checksum.status", "-e", "ip.checksum.status")
			var problems bytes.Buffer
			command.Stderr = &problems
			output, err := command.Output()
			if err != nil {
				t.Fatalf("%v: %v\n%s", command, err, &problems)
			}
			end := "|1|1"
			if addr.Addr().Is6() {
				end = "|1|"
			}
			get, put := "||uImage|||", "||log|||" // the dissector knows the transfer of each packet
			want := []string{
				"1|uImage||tsize,blksize|0,1468|" + end,
				"6||uImage|tsize,blksize|2000,1468|" + end,
				"4" + get + "0" + end, "3" + get + "1" + end, "4" + get + "1" + end,
				"3" + get + "2" + end, "4" + get + "2" + end,
				"2||log|tsize,blksize|100,1468|" + end,
				"6||log|tsize,blksize|100,1468|" + end,
				"3" + put + "1" + end, "4" + put + "1" + end,
			}
			if diff := cmp.Diff(want, strings.Split(strings.TrimSpace(string(output)), "\n")); diff != "" {
				t.Errorf("tshark reads something else (-want +got):\n%s", diff)
			}
		})
	}
}

type fullDisk struct{ left int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if d.left -= len(p); d.left < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestAnErrorIsKeptForFlush(t *testing.T) {
	t.Parallel()
	if _, err := pcapng.NewWriter(&fullDisk{}); err != nil && err.Error() != "pcapng: disk full" {
		t.Error(err)
	}
	capture, err := pcapng.NewWriter(&fullDisk{left: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		capture.Packet(tftp.Packet{Local: netip.MustParseAddrPort("10.0.0.1:69"), Peer: netip.MustParseAddrPort("10.0.0.2:1069"), Data: make([]byte, 100)})
	}
	if err := capture.Flush(); err == nil || err.Error() != "pcapng: disk full" {
		t.Errorf("Flush returned %v", err)
	}
}
