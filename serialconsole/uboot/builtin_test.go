package uboot_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// QEMU's own TFTP server has no record and no options but blksize, which makes
// it a second opinion on what U-Boot prints.
func TestTFTPBootFromAnotherServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	files := t.TempDir()
	content := bytes.Repeat([]byte("0123456789abcdef"), 1000)
	if err := os.WriteFile(filepath.Join(files, "file"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(files, "empty"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	shell := startWithBuiltinServer(t, ctx, files)

	load, err := shell.TFTPBoot(ctx, "file", uboot.TFTPOptions{})
	if err != nil || load.Size != int64(len(content)) {
		t.Fatalf("load %+v, %v", load, err)
	}
	if crc, err := shell.CRC32(ctx, load.Addr, load.Size); err != nil || crc != crc32.ChecksumIEEE(content) {
		t.Errorf("crc32 %08x, %v", crc, err)
	}
	if load, err := shell.TFTPBoot(ctx, "empty", uboot.TFTPOptions{}); err != nil || load.Size != 0 {
		t.Errorf("the empty file: %+v, %v", load, err)
	}
	_, err = shell.TFTPBoot(ctx, "missing", uboot.TFTPOptions{})
	var failed *uboot.TransferError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, "TFTP error: 'File not found' (1)") {
		t.Errorf("the missing file: %v", err)
	}
	if _, err := shell.TFTPBoot(ctx, strings.Repeat("n", 128), uboot.TFTPOptions{}); err == nil || !strings.Contains(err.Error(), "1 to 127 characters") {
		t.Errorf("a name that U-Boot would cut: %v", err)
	}
}

// startWithBuiltinServer starts a U-Boot whose network is QEMU's own, with its
// TFTP server.
func startWithBuiltinServer(t testing.TB, ctx context.Context, files string) *uboot.Shell {
	t.Helper()
	return startBuiltin(t, ctx, files, nil, recorded[0].program, strings.Fields(recorded[0].args)...)
}

// startBuiltin does so with any QEMU; the network is called wire.
func startBuiltin(t testing.TB, ctx context.Context, files string, transcript *serialconsole.Transcript, program string, args ...string) *uboot.Shell {
	t.Helper()
	socket := startQEMU(t, ctx, files, program, args...)
	port, err := serialconsole.Open(ctx, "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	console := serialconsole.New(port, serialconsole.Config{Transcript: transcript})
	t.Cleanup(func() { console.Close() })
	shell := uboot.New(console, uboot.Config{})
	if err := shell.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}
	setNetwork(t, ctx, shell, netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("10.0.2.2"))
	return shell
}

// startQEMU starts a QEMU that waits for its console's client, and returns the
// console's socket.
func startQEMU(t testing.TB, ctx context.Context, files, program string, args ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "console")
	qemu := exec.CommandContext(ctx, program, append([]string{"-nodefaults", "-display", "none", "-m", "512",
		"-chardev", "socket,id=console,server=on,wait=on,nodelay=on,path=" + socket, "-serial", "chardev:console",
		"-netdev", "user,id=wire,tftp=" + files}, args...)...)
	said, err := qemu.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { qemu.Process.Kill(); qemu.Wait() })
	// It says that it waits for the console's client.
	lines := bufio.NewScanner(said)
	for !strings.Contains(lines.Text(), "waiting for connection") {
		if !lines.Scan() {
			t.Fatalf("QEMU ended without waiting for the console's client: %v", lines.Err())
		}
	}
	return socket
}

func setNetwork(t testing.TB, ctx context.Context, shell *uboot.Shell, board, server netip.Addr) {
	t.Helper()
	for name, value := range map[string]string{"ipaddr": board.String(), "netmask": "255.255.255.0", "serverip": server.String()} {
		if err := shell.Setenv(ctx, name, value); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkLoad32MiB compares tftpboot over the cable, from our server, with
// QEMU's built-in TFTP server on the same U-Boot. The block size is U-Boot's
// default, 1468, on all; the built-in server knows no windows.
func BenchmarkLoad32MiB(b *testing.B) {
	content := make([]byte, 32<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	load := func(b *testing.B, ctx context.Context, shell *uboot.Shell, options uboot.TFTPOptions) {
		b.SetBytes(int64(len(content)))
		for b.Loop() {
			if load, err := shell.TFTPBoot(ctx, "file", options); err != nil || load.Size != int64(len(content)) {
				b.Fatal(load.Size, err)
			}
		}
	}
	b.Run("server=builtin", func(b *testing.B) {
		files := b.TempDir()
		if err := os.WriteFile(filepath.Join(files, "file"), content, 0o644); err != nil {
			b.Fatal(err)
		}
		load(b, b.Context(), startWithBuiltinServer(b, b.Context(), files), uboot.TFTPOptions{})
	})
	boards := []struct {
		name  string
		start func(context.Context, virtual.Config) (*virtual.Board, error)
	}{{"process", virtual.StartProcess}, {"container", virtual.StartContainer}}
	for _, device := range boards {
		for _, window := range []int{1, 16} {
			b.Run(fmt.Sprintf("server=ours/board=%s/window=%d", device.name, window), func(b *testing.B) {
				board, err := device.start(b.Context(), virtual.Config{})
				if err != nil {
					b.Fatal(err)
				}
				defer board.Close()
				_, shell := atPrompt(b, b.Context(), board)
				conn, err := board.ListenPacket("udp", ":69")
				if err != nil {
					b.Fatal(err)
				}
				server := &tftp.Server{FS: fstest.MapFS{"file": {Data: content}}, ListenPacket: board.ListenPacket}
				go server.Serve(conn)
				defer server.Close()
				setNetwork(b, b.Context(), shell, board.BoardAddr().Addr(), board.HostAddr())
				load(b, b.Context(), shell, uboot.TFTPOptions{WindowSize: window})
			})
		}
	}
}
