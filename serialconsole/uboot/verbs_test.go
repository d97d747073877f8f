package uboot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// fullFirmware returns a U-Boot with every command that is tried here, and
// builds it first where that was not done yet.
func fullFirmware(t testing.TB) string {
	t.Helper()
	var said strings.Builder
	build := exec.CommandContext(t.Context(), "../../ci/firmware")
	build.Stderr = &said
	path, err := build.Output()
	if err != nil {
		t.Fatalf("ci/firmware: %v\n%s", err, said.String())
	}
	return strings.TrimSpace(string(path))
}

// startFull brings a full-featured U-Boot to its prompt, beside a server that
// has the file and takes what is put.
func startFull(t testing.TB) (context.Context, *uboot.Shell, *virtual.Board, *tftp.Server, *tftp.Memory) {
	t.Helper()
	firmware := fullFirmware(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	board, err := virtual.StartProcess(ctx, virtual.Config{Firmware: firmware})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := board.Close(); err != nil {
			t.Error(err)
		}
	})
	_, shell := atPrompt(t, ctx, board)
	conn, err := board.ListenPacket("udp", ":69")
	if err != nil {
		t.Fatal(err)
	}
	memory := new(tftp.Memory)
	server := &tftp.Server{FS: sessionFiles, Create: memory.Create, ListenPacket: board.ListenPacket}
	go server.Serve(conn)
	t.Cleanup(func() { server.Close() })
	setNetwork(t, ctx, shell, board.BoardAddr().Addr(), board.HostAddr())
	return ctx, shell, board, server, memory
}

func TestVerbsOnRealUBoot(t *testing.T) {
	t.Parallel()
	ctx, shell, board, server, memory := startFull(t)
	const addr = 0x42000000
	data := make([]byte, 10_001)
	rand.NewChaCha8([32]byte{}).Read(data)

	takes := func(t *testing.T) {
		t.Helper()
		client := &tftp.Client{ListenPacket: board.ListenPacket}
		put := make(chan error, 1)
		load, err := shell.TFTPSrv(ctx, addr, func() {
			go func() {
				record, err := client.Put(ctx, netip.AddrPortFrom(board.BoardAddr().Addr(), 69), "firmware", bytes.NewReader(data))
				if err == nil && record.SHA256 != sha256.Sum256(data) {
					err = fmt.Errorf("record %v", record)
				}
				put <- err
			}()
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-put; err != nil {
			t.Error(err)
		}
		if load.Size != int64(len(data)) || load.Addr != addr {
			t.Errorf("load %+v", load)
		}
	}
	// What it takes is what the other verbs work on.
	t.Run("it is the server that a client puts a file on", takes)

	t.Run("it sums memory up in every way", func(t *testing.T) {
		sum := sha256.Sum256(data)
		if got, err := shell.Hash(ctx, "sha256", addr, int64(len(data))); err != nil || !bytes.Equal(got, sum[:]) {
			t.Errorf("sha256 %x, %v", got, err)
		}
		if got, err := shell.Hash(ctx, "crc32", addr, int64(len(data))); err != nil || fmt.Sprintf("%x", got) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(data)) {
			t.Errorf("crc32 %x, %v", got, err)
		}
		if _, err := shell.Hash(ctx, "sha999", addr, 1); err == nil {
			t.Error("an algorithm that there is not")
		}
	})

	t.Run("it uploads memory", func(t *testing.T) {
		var marks atomic.Int32
		if _, err := shell.TFTPPut(ctx, "logs/board 1.bin", addr, int64(len(data)), uboot.TFTPOptions{Progress: func() { marks.Add(1) }}); err != nil {
			t.Fatal(err)
		}
		if err := server.Settled(ctx); err != nil {
			t.Error(err)
		}
		if got, ok := memory.Bytes("logs/board 1.bin"); !ok || !bytes.Equal(got, data) {
			t.Errorf("%d bytes arrived", len(got))
		}
		if marks.Load() == 0 {
			t.Error("no progress was seen")
		}
		_, err := shell.TFTPPut(ctx, "logs/board 1.bin", addr, 10, uboot.TFTPOptions{})
		var failed *uboot.TransferError
		if !errors.As(err, &failed) || failed.Code != int(tftp.CodeFileExists) || failed.Command != "tftpput" {
			t.Errorf("a file that is there: %v", err)
		}
	})

	t.Run("it is the server again after an upload, which leaves U-Boot confused", takes)

	t.Run("memory is read and written", func(t *testing.T) {
		if got, err := shell.ReadMemory(ctx, addr, int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		patch := append([]byte("a patch"), make([]byte, 100)...)
		if err := shell.WriteMemory(ctx, addr+3, patch); err != nil {
			t.Fatal(err)
		}
		if got, err := shell.ReadMemory(ctx, addr, 120); err != nil || !bytes.Equal(got[3:110], patch) || !bytes.Equal(got[:3], data[:3]) || !bytes.Equal(got[110:], data[110:120]) {
			t.Errorf("%x, %v", got, err)
		}
		if at, err := shell.Compare(ctx, addr+10, addr+11, 99); err != nil || at != -1 {
			t.Errorf("equal memory: %d, %v", at, err)
		}
		if at, err := shell.Compare(ctx, addr+9, addr+10, 5); err != nil || at != 0 {
			t.Errorf("unequal memory: %d, %v", at, err)
		}
	})

	t.Run("its environment is listed", func(t *testing.T) {
		if err := shell.Setenv(ctx, "v", "a=b; c"); err != nil {
			t.Fatal(err)
		}
		env, err := shell.Env(ctx)
		if err != nil || env["v"] != "a=b; c" || env["bootdelay"] != "2" || len(env) < 10 {
			t.Errorf("%v, %v", env, err)
		}
	})

	t.Run("what it can do is asked", func(t *testing.T) {
		for command, want := range map[string]bool{"tftpput": true, "tftpsrv": true, "hash": true, "pxe": true, "nosuch": false} {
			if has, err := shell.Has(ctx, command); err != nil || has != want {
				t.Errorf("%s: %v, %v", command, has, err)
			}
		}
	})

	t.Run("it pings", func(t *testing.T) {
		if err := shell.Ping(ctx, board.HostAddr()); err != nil {
			t.Error(err)
		}
	})

	t.Run("a script is run from memory", func(t *testing.T) {
		if err := shell.WriteMemory(ctx, addr, scriptImage("echo from the script; setenv v set by it\n")); err != nil {
			t.Fatal(err)
		}
		if output, err := shell.Source(ctx, addr); err != nil || !strings.Contains(output, "from the script") {
			t.Errorf("%q, %v", output, err)
		}
		if value, err := shell.Getenv(ctx, "v"); err != nil || value != "set by it" {
			t.Errorf("%q, %v", value, err)
		}
		if err := shell.WriteMemory(ctx, addr, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if _, err := shell.Source(ctx, addr); err == nil {
			t.Error("what is no image was run as a script")
		}
	})

	t.Run("a boot command that comes back says why", func(t *testing.T) {
		err := shell.Boot(ctx, fmt.Sprintf("booti %x", addr), nil)
		var boot *uboot.BootError
		if !errors.As(err, &boot) || !strings.Contains(err.Error(), "Bad Linux ARM64 Image magic!") && !strings.Contains(boot.Output, "Bad Linux ARM64 Image magic!") {
			t.Errorf("error %v", err)
		}
		if got, err := shell.Run(ctx, "echo again"); err != nil || got != "again" {
			t.Errorf("the next command: %q, %v", got, err)
		}
	})

	t.Run("no PXE configuration", func(t *testing.T) {
		if err := shell.PXEGet(ctx); err == nil {
			t.Error("no error")
		}
	})

	t.Run("it switches off", func(t *testing.T) {
		if err := shell.PowerOff(ctx); err != nil {
			t.Error(err)
		}
	})
}

// scriptImage makes of a script what mkimage -T script does (include/image.h in
// U-Boot: struct legacy_img_hdr, big-endian).
func scriptImage(script string) []byte {
	data := binary.BigEndian.AppendUint32(nil, uint32(len(script)))
	data = append(append(data, 0, 0, 0, 0), script...)
	header := make([]byte, 64)
	binary.BigEndian.PutUint32(header, 0x27051956)
	binary.BigEndian.PutUint32(header[12:], uint32(len(data)))
	binary.BigEndian.PutUint32(header[24:], crc32.ChecksumIEEE(data))
	header[30] = 6 // a script
	binary.BigEndian.PutUint32(header[4:], crc32.ChecksumIEEE(header))
	return append(header, data...)
}

func TestDHCPFromQEMU(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	shell := startWithBuiltinServer(t, ctx, t.TempDir())
	lease, err := shell.DHCP(ctx)
	if err != nil || lease.Addr != netip.MustParseAddr("10.0.2.15") {
		t.Errorf("%+v, %v", lease, err)
	}
	if err := shell.Ping(ctx, netip.MustParseAddr("10.0.2.2")); err != nil {
		t.Error(err)
	}
}

func TestAVerbThatUBootLacks(t *testing.T) {
	t.Parallel()
	ctx, shell, _ := start(t)
	if _, err := shell.TFTPPut(ctx, "f", 0x42000000, 1, uboot.TFTPOptions{}); !errors.Is(err, uboot.ErrNoCommand) || !strings.Contains(err.Error(), "CONFIG_CMD_TFTPPUT") {
		t.Errorf("tftpput: %v", err)
	}
	if _, err := shell.TFTPSrv(ctx, 0x42000000, nil); !errors.Is(err, uboot.ErrNoCommand) {
		t.Errorf("tftpsrv: %v", err)
	}
}
