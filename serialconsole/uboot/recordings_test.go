package uboot_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/serialconsole/uboot/uboottest"
	"github.com/boardspec/boardspec/tftp"
)

// To record anew, with all QEMUs installed (qemu-system-arm qemu-system-misc
// qemu-system-x86 u-boot-qemu) and a container engine:
//
//	go test ./serialconsole/uboot -run TestRecord -record
var record = flag.Bool("record", false, "record sessions of real U-Boots in testdata")

// recorded are the U-Boots of which there are recordings.
var recorded = []struct {
	name    string
	program string // empty for a container board
	args    string
}{
	{"2023.01-arm64-virtio", "qemu-system-aarch64", "-machine virt -cpu cortex-a57 -bios /usr/lib/u-boot/qemu_arm64/u-boot.bin -device virtio-net-pci,netdev=wire,disable-legacy=on,romfile="},
	{"2023.01-arm64-e1000", "qemu-system-aarch64", "-machine virt -cpu cortex-a57 -bios /usr/lib/u-boot/qemu_arm64/u-boot.bin -device e1000,netdev=wire,romfile="},
	{"2023.01-arm-virtio", "qemu-system-arm", "-machine virt -bios /usr/lib/u-boot/qemu_arm/u-boot.bin -device virtio-net-pci,netdev=wire,disable-legacy=on,romfile="},
	{"2023.01-riscv64-virtio", "qemu-system-riscv64", "-machine virt -bios /usr/lib/u-boot/qemu-riscv64/u-boot.bin -device virtio-net-device,netdev=wire"},
	{"2023.01-x86-e1000", "qemu-system-i386", "-bios /usr/lib/u-boot/qemu-x86/u-boot.rom -device e1000,netdev=wire,romfile="},
	{"2023.01-x86_64-e1000", "qemu-system-x86_64", "-bios /usr/lib/u-boot/qemu-x86_64/u-boot.rom -device e1000,netdev=wire,romfile="},
	{"2025.01-arm64-virtio", "", ""},
}

// session does what shows most of a U-Boot, and returns what came of it.
func session(ctx context.Context, shell *uboot.Shell) string {
	var text strings.Builder
	show := func(what string, result any, err error) {
		var (
			exit     *uboot.ExitError
			transfer *uboot.TransferError
		)
		switch {
		case errors.As(err, &exit):
			err = fmt.Errorf("exit status %d", exit.Status)
		case errors.As(err, &transfer):
			err = fmt.Errorf("transfer: code %d, %s", transfer.Code, transfer.Reason)
		}
		fmt.Fprintf(&text, "%s: %v, %v\n", what, result, err)
	}
	run := func(command string) {
		output, err := shell.Run(ctx, command)
		show(command, fmt.Sprintf("%q", output), err)
	}
	version, err := shell.Version(ctx)
	show("version", version, err)
	run("echo one two")
	run("false")
	run("nosuchcommand")
	delay, err := shell.Getenv(ctx, "bootdelay")
	show("bootdelay", delay, err)
	show("setenv", nil, shell.Setenv(ctx, "v", `all of ' " $ \ ;`))
	value, err := shell.Getenv(ctx, "v")
	show("v", value, err)
	_, err = shell.Getenv(ctx, "nosuchvariable")
	show("nosuchvariable", nil, err)
	addr, err := shell.LoadAddr(ctx)
	show("load address", fmt.Sprintf("%#x", addr), err)
	show("fill", nil, shell.Fill(ctx, addr, 4099, 0xa5))
	crc, err := shell.CRC32(ctx, addr, 4099)
	show("crc32", fmt.Sprintf("%08x", crc), err)
	run("md.b " + fmt.Sprintf("%x", addr) + " 20")
	window, err := shell.WindowSize(ctx)
	show("window size", window, err)
	for _, file := range []string{"file", "empty", "missing"} {
		load, err := shell.TFTPBoot(ctx, file, uboot.TFTPOptions{WindowSize: 1})
		show("tftpboot "+file, load.Size, err)
	}
	crc, err = shell.CRC32(ctx, addr, 3000)
	show("crc32 of the file", fmt.Sprintf("%08x", crc), err)
	return text.String()
}

var sessionFiles = fstest.MapFS{"file": {Data: bytes.Repeat([]byte("0123456789"), 300)}, "empty": {}}

func TestRecordings(t *testing.T) {
	t.Parallel()
	for _, machine := range recorded {
		t.Run(machine.name, func(t *testing.T) {
			t.Parallel()
			board, err := uboottest.Open(filepath.Join("testdata", machine.name+".console"))
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join("testdata", machine.name+".golden"))
			if err != nil {
				t.Fatal(err)
			}
			ctx, shell, _ := on(t, board, uboot.Config{})
			if got := session(ctx, shell); got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestRecord(t *testing.T) {
	if !*record {
		return // it tests nothing
	}
	files := t.TempDir()
	for name, file := range sessionFiles {
		if err := os.WriteFile(filepath.Join(files, name), file.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, machine := range recorded {
		t.Run(machine.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			path := filepath.Join(t.TempDir(), "transcript")
			transcript, err := serialconsole.CreateTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			var shell *uboot.Shell
			if machine.program == "" {
				shell = startContainer(t, ctx, transcript)
			} else {
				shell = startBuiltin(t, ctx, files, transcript, machine.program, strings.Fields(machine.args)...)
			}
			golden := session(ctx, shell)
			if err := transcript.Close(); err != nil {
				t.Fatal(err)
			}
			if transcript, err = serialconsole.OpenTranscript(path); err != nil {
				t.Fatal(err)
			}
			defer transcript.Close()
			var console bytes.Buffer
			if err := transcript.WriteText(&console); err != nil {
				t.Fatal(err)
			}
			// What varies from run to run and shows nothing.
			text := regexp.MustCompile(`\d+(\.\d+)? [KM]iB/s`).ReplaceAll(console.Bytes(), []byte("1 MiB/s"))
			if err := errors.Join(
				os.WriteFile(filepath.Join("testdata", machine.name+".console"), text, 0o644),
				os.WriteFile(filepath.Join("testdata", machine.name+".golden"), []byte(golden), 0o644)); err != nil {
				t.Fatal(err)
			}
			t.Log(golden)
		})
	}
}

// startContainer starts a board in a container, with a server of ours.
func startContainer(t *testing.T, ctx context.Context, transcript *serialconsole.Transcript) *uboot.Shell {
	t.Helper()
	board, err := virtual.StartContainer(ctx, virtual.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { board.Close() })
	port, err := board.OpenConsole(ctx)
	if err != nil {
		t.Fatal(err)
	}
	console := serialconsole.New(port, serialconsole.Config{Transcript: transcript})
	t.Cleanup(func() { console.Close() })
	if err := board.On(ctx); err != nil {
		t.Fatal(err)
	}
	shell := uboot.New(console, uboot.Config{})
	if err := shell.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := board.ListenPacket("udp", ":69")
	if err != nil {
		t.Fatal(err)
	}
	server := &tftp.Server{FS: sessionFiles, ListenPacket: board.ListenPacket}
	go server.Serve(conn)
	t.Cleanup(func() { server.Close() })
	setNetwork(t, ctx, shell, board.BoardAddr().Addr(), board.HostAddr())
	return shell
}
