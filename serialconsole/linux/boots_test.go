package linux_test

import (
	"context"
	"errors"
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
	"github.com/boardspec/boardspec/serialconsole/linux"
	"github.com/boardspec/boardspec/serialconsole/uboot"
)

// menu has two labels.
const menu = `MENU TITLE Which Linux?
DEFAULT first
PROMPT 1
TIMEOUT 600
LABEL first
	KERNEL Image
	INITRD initramfs.cpio.gz
	FDT virt.dtb
	APPEND quiet panic=0 label=first
LABEL second
	KERNEL Image
	INITRD initramfs.cpio.gz
	FDT virt.dtb
	APPEND quiet panic=0 label=second
`

// Each way to boot a Linux whose parts come over TFTP: with its own device tree,
// and the label that was chosen.
func TestEveryWayToBoot(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	files := fstest.MapFS{"pxelinux.cfg/default": {Data: []byte(menu)}}
	for _, name := range []string{"Image", "initramfs.cpio.gz", "virt.dtb", "linux.itb"} {
		data, err := os.ReadFile(filepath.Join(script(t, "linux"), name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	wrong := []byte(strings.Clone(string(files["linux.itb"].Data)))
	wrong[len(wrong)/2] ^= 1
	files["wrong.itb"] = &fstest.MapFile{Data: wrong}
	board, console, boot := start(t, ctx, virtual.Config{}, files)

	load := func(file, variable string) uboot.Load {
		t.Helper()
		addr, err := boot.Addr(ctx, variable)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := boot.TFTPBoot(ctx, file, uboot.TFTPOptions{Addr: addr})
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	// menuChoice starts what the menu's entry of that number says.
	menuChoice := func(number string) error {
		if err := boot.PXEGet(ctx); err != nil {
			return err
		}
		from := console.Mark()
		if err := boot.Boot(ctx, "pxe boot", regexp.MustCompile(`^Enter choice: `)); err != nil {
			return err
		}
		if err := console.Send(ctx, number+"\r"); err != nil {
			return err
		}
		_, err := console.Expect(ctx, from, serialconsole.Line(regexp.MustCompile(`^Starting kernel`)))
		return err
	}
	for _, way := range []struct {
		name  string
		start func() error
		label string
	}{
		{"booti with kernel, device tree and initramfs", func() error {
			kernel, tree, initramfs := load("Image", "kernel_addr_r"), load("virt.dtb", "loadaddr"), load("initramfs.cpio.gz", "ramdisk_addr_r")
			return boot.Boot(ctx, fmt.Sprintf("booti %x %x:%x %x", kernel.Addr, initramfs.Addr, initramfs.Size, tree.Addr), nil)
		}, ""},
		{"bootm of a FIT", func() error {
			return boot.Boot(ctx, fmt.Sprintf("bootm %x", load("linux.itb", "ramdisk_addr_r").Addr), nil)
		}, ""},
		{"bootm of a FIT with its configuration", func() error {
			return boot.Boot(ctx, fmt.Sprintf("bootm %x#virt", load("linux.itb", "ramdisk_addr_r").Addr), nil)
		}, ""},
		{"PXE, the first label", func() error { return menuChoice("1") }, "first"},
		{"PXE, the second label", func() error { return menuChoice("2") }, "second"},
	} {
		if err := board.Cycle(ctx); err != nil {
			t.Fatal(err)
		}
		if err := boot.Interrupt(ctx); err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"ipaddr": board.BoardAddr().Addr().String(), "serverip": board.HostAddr().String(), "netmask": "255.255.255.0",
			"bootargs": "quiet panic=0 label=", "fdt_addr_r": "40200000",
		} {
			if err := boot.Setenv(ctx, name, value); err != nil {
				t.Fatal(err)
			}
		}
		if err := way.start(); err != nil {
			t.Errorf("%s: %v", way.name, err)
			continue
		}
		shell := linux.New(console, linux.Config{})
		if got, err := shell.Run(ctx, "cat /proc/device-tree/chosen/boardspec,from"); err != nil || got != "tftp" {
			t.Errorf("%s: the device tree is from %q, %v", way.name, got, err)
		}
		if got, err := shell.Run(ctx, "cat /proc/cmdline"); err != nil || got != "quiet panic=0 label="+way.label {
			t.Errorf("%s: booted with %q, %v", way.name, got, err)
		}
	}

	// U-Boot itself refuses what its hash does not fit.
	if err := board.Cycle(ctx); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"ipaddr": board.BoardAddr().Addr().String(), "serverip": board.HostAddr().String()} {
		if err := boot.Setenv(ctx, name, value); err != nil {
			t.Fatal(err)
		}
	}
	var refused *uboot.BootError
	err := boot.Boot(ctx, fmt.Sprintf("bootm %x", load("wrong.itb", "ramdisk_addr_r").Addr), nil)
	if !errors.As(err, &refused) || !strings.Contains(err.Error(), "Bad hash value for 'hash' hash node in 'kernel'") {
		t.Errorf("a byte of the FIT is wrong: %v", err)
	}
	err = boot.Boot(ctx, fmt.Sprintf("bootm %x#none", load("linux.itb", "ramdisk_addr_r").Addr), nil)
	if !errors.As(err, &refused) {
		t.Errorf("a configuration that there is not: %v", err)
	}
}
