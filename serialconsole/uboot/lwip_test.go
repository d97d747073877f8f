package uboot_test

import (
	"context"
	"errors"
	"hash/crc32"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/fixture/virtual/cable"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// The verbs on a real U-Boot with the lwIP stack, which prints other words and
// returns other codes, and knows neither block sizes nor windows. Few transfers
// fail here: that of 2025.01 was seen to crash after several that did.
func TestLwIP(t *testing.T) {
	building, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	board, err := virtual.StartContainer(building, virtual.Config{Build: "lwip"})
	if err != nil && strings.Contains(err.Error(), "no container engine answers") && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { board.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, shell := atPrompt(t, ctx, board)
	lease := netip.MustParseAddr("192.168.7.77")
	dhcp, err := board.Segment().ServeDHCP(cable.DHCP{Addr: lease, BootFile: "file"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dhcp.Close() })
	conn, err := board.ListenPacket("udp", ":69")
	if err != nil {
		t.Fatal(err)
	}
	file := make([]byte, 5000)
	for i := range file {
		file[i] = byte(i * i)
	}
	files := fstest.MapFS{"file": {Data: file}, "empty": {}}
	server := &tftp.Server{FS: files, ListenPacket: board.ListenPacket}
	go server.Serve(conn)
	t.Cleanup(func() { server.Close() })

	setNetwork(t, ctx, shell, board.BoardAddr().Addr(), board.HostAddr())
	if err := shell.Ping(ctx, board.HostAddr()); err != nil {
		t.Errorf("ping this host: %v", err)
	}
	var exit *uboot.ExitError
	if err := shell.Ping(ctx, netip.MustParseAddr("192.168.7.99")); !errors.As(err, &exit) {
		t.Errorf("ping no one: %v", err)
	}
	if window, err := shell.WindowSize(ctx); err != nil || window != 16 {
		t.Errorf("window %d, %v: the network device was not found", window, err)
	}

	load, err := shell.TFTPBoot(ctx, "file", uboot.TFTPOptions{BlockSize: 512})
	if err != nil || load.Size != int64(len(file)) {
		t.Errorf("file: %+v, %v", load, err)
	}
	if crc, err := shell.CRC32(ctx, load.Addr, load.Size); err != nil || crc != crc32.ChecksumIEEE(file) {
		t.Errorf("file: crc32 %08x, %v", crc, err)
	}
	if load, err := shell.TFTPBoot(ctx, "empty", uboot.TFTPOptions{}); err != nil || load.Size != 0 {
		t.Errorf("empty: %+v, %v", load, err)
	}
	var failure *uboot.TransferError
	if _, err := shell.TFTPBoot(ctx, "missing", uboot.TFTPOptions{}); !errors.As(err, &failure) || failure.Code != 1 || !strings.Contains(failure.Reason, "File not found") {
		t.Errorf("missing: %#v, %v", failure, err)
	}
	if _, err := shell.TFTPPut(ctx, "up", load.Addr, 1, uboot.TFTPOptions{}); !errors.Is(err, uboot.ErrNoCommand) {
		t.Errorf("tftpput: %v", err)
	}
	// It waits for a server without end; the context ends that, and the prompt
	// is there again.
	if err := shell.Setenv(ctx, "serverip", "192.168.7.99"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := shell.TFTPBoot(short, "file", uboot.TFTPOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that does not answer: %v", err)
	}
	if err := shell.Setenv(ctx, "serverip", board.HostAddr().String()); err != nil {
		t.Fatal(err)
	}
	if load, err := shell.TFTPBoot(ctx, "file", uboot.TFTPOptions{}); err != nil || load.Size != int64(len(file)) {
		t.Errorf("file, afterwards: %+v, %v", load, err)
	}

	if got, err := shell.DHCP(ctx); err != nil || got.Addr != lease || got.BootFile != "file" || got.ServerIP != board.HostAddr().String() {
		t.Fatalf("dhcp: %+v, %v", got, err)
	}
}
