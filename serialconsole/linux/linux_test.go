package linux_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/fixture/virtual/cable"
	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/linux"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/tftp"
)

// script runs a script of ci that prints a path, and makes what is there first
// where that was not done yet.
func script(t testing.TB, name string) string {
	t.Helper()
	var said strings.Builder
	build := exec.CommandContext(t.Context(), "../../ci/"+name)
	build.Stderr = &said
	path, err := build.Output()
	if err != nil {
		t.Fatalf("ci/%s: %v\n%s", name, err, said.String())
	}
	return strings.TrimSpace(string(path))
}

// start brings a board to U-Boot's prompt, beside a server of files.
func start(t *testing.T, ctx context.Context, config virtual.Config, files fs.FS) (*virtual.Board, *serialconsole.Console, *uboot.Shell) {
	t.Helper()
	board, err := virtual.StartProcess(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { board.Close() })
	port, err := board.OpenConsole(ctx)
	if err != nil {
		t.Fatal(err)
	}
	console := serialconsole.New(port, serialconsole.Config{})
	t.Cleanup(func() { console.Close() })
	if err := board.On(ctx); err != nil {
		t.Fatal(err)
	}
	conn, err := board.ListenPacket("udp", ":69")
	if err != nil {
		t.Fatal(err)
	}
	server := &tftp.Server{FS: files, ListenPacket: board.ListenPacket}
	go server.Serve(conn)
	t.Cleanup(func() { server.Close() })
	return board, console, uboot.New(console, uboot.Config{})
}

// The board asks for its address, then for what to boot, and boots that.
func TestPXEBootsLinux(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	files := fstest.MapFS{"pxelinux.cfg/default": {Data: []byte(
		"DEFAULT linux\nLABEL linux\n\tKERNEL Image\n\tINITRD initramfs.cpio.gz\n\tAPPEND console=ttyAMA0 quiet\n")}}
	for _, name := range []string{"Image", "initramfs.cpio.gz"} {
		data, err := os.ReadFile(filepath.Join(script(t, "linux"), name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	board, console, boot := start(t, ctx, virtual.Config{Firmware: script(t, "firmware")}, files)
	if _, err := board.Segment().ServeDHCP(cable.DHCP{}); err != nil {
		t.Fatal(err)
	}
	if _, err := boot.DHCP(ctx); err != nil {
		t.Fatal(err)
	}
	if err := boot.PXEGet(ctx); err != nil {
		t.Fatal(err)
	}
	if err := boot.PXEBoot(ctx); err != nil {
		t.Fatal(err)
	}
	shell := linux.New(console, linux.Config{})
	if got, err := shell.Run(ctx, "cat /proc/cmdline"); err != nil || !strings.Contains(got, "console=ttyAMA0 quiet") {
		t.Errorf("%q, %v", got, err)
	}
}

// terminal plays a Linux that asks for a user and a password, and whose shell
// knows true and what is echoed between markers.
func terminal(t *testing.T, password string) *serialconsole.Console {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	go func() {
		lines := bufio.NewScanner(far)
		say := func(text string) { io.WriteString(far, text) }
		for {
			say("\r\nDebian GNU/Linux 13 board ttyAMA0\r\n\r\nboard login: ")
			if !lines.Scan() {
				return
			}
			say(lines.Text() + "\r\nPassword: ")
			if !lines.Scan() {
				return
			}
			if lines.Text() == password {
				break
			}
			say("\r\nLogin incorrect\r\n")
		}
		say("\r\n[   12.345678] random: crng init done\r\nroot@board:~# ")
		marker := regexp.MustCompile(`B([SE])''([A-Z2-7]+)`)
		for lines.Scan() {
			say(lines.Text() + "\r\n\r\n")
			for _, found := range marker.FindAllStringSubmatch(lines.Text(), -1) {
				if found[1] == "S" {
					say("BS" + found[2] + "\r\n")
				} else {
					say("BE" + found[2] + ":0\r\n")
				}
			}
			say("root@board:~# ")
		}
	}()
	console := serialconsole.New(near, serialconsole.Config{})
	t.Cleanup(func() { console.Close() })
	return console
}

func TestLogin(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := linux.New(terminal(t, "s3cret"), linux.Config{Password: "s3cret"}).Login(ctx); err != nil {
		t.Error(err)
	}
	err := linux.New(terminal(t, "s3cret"), linux.Config{Password: "guess"}).Login(ctx)
	if err == nil || !strings.Contains(err.Error(), "root may not log in with the password of Config") {
		t.Errorf("error %v", err)
	}
}

// From U-Boot's prompt to a root shell of a real Linux, whose kernel and initramfs
// come over TFTP, to a panic and back.
func TestLinuxOnRealUBoot(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	board, console, boot := start(t, ctx, virtual.Config{}, os.DirFS(script(t, "linux")))
	up := func() *linux.Shell {
		t.Helper()
		for name, value := range map[string]string{
			"ipaddr": board.BoardAddr().Addr().String(), "serverip": board.HostAddr().String(), "netmask": "255.255.255.0",
			"bootargs": "console=ttyAMA0 panic=0 quiet",
		} {
			if err := boot.Setenv(ctx, name, value); err != nil {
				t.Fatal(err)
			}
		}
		for variable, file := range map[string]string{"kernel_addr_r": "Image", "ramdisk_addr_r": "uInitrd"} {
			addr, err := boot.Getenv(ctx, variable)
			if err != nil {
				t.Fatal(err)
			}
			var to uint64
			fmt.Sscanf(addr, "0x%x", &to)
			if _, err := boot.TFTPBoot(ctx, file, uboot.TFTPOptions{Addr: to}); err != nil {
				t.Fatal(err)
			}
		}
		if err := boot.Boot(ctx, "booti $kernel_addr_r $ramdisk_addr_r $fdtcontroladdr", nil); err != nil {
			t.Fatal(err)
		}
		shell := linux.New(console, linux.Config{})
		if err := shell.Login(ctx); err != nil {
			t.Fatal(err)
		}
		return shell
	}
	shell := up()

	for command, want := range map[string]string{
		"echo one two":             "one two",
		"echo one; echo two":       "one\ntwo",
		"printf 'no line end'":     "no line end",
		"echo '# '; echo \"it's\"": "# \nit's",
		"true # a comment":         "",
		"uname -m":                 "aarch64",
	} {
		if got, err := shell.Run(ctx, command); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", command, got, err, want)
		}
	}
	_, err := shell.Run(ctx, "echo before; exit_status() { return 7; }; exit_status")
	var exit *linux.ExitError
	if !errors.As(err, &exit) || exit.Status != 7 || exit.Output != "before" {
		t.Errorf("a command that fails: %v", err)
	}
	short, cancelShort := context.WithTimeout(ctx, 300*time.Millisecond)
	if _, err := shell.Run(short, "sleep 600"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that outlives its context: %v", err)
	}
	cancelShort()
	if got, err := shell.Run(ctx, "echo again"); err != nil || got != "again" {
		t.Errorf("the next command: %q, %v", got, err)
	}

	if err := shell.Reboot(ctx, boot); err != nil {
		t.Fatal(err)
	}
	if got, err := boot.Run(ctx, "echo U-Boot again"); err != nil || got != "U-Boot again" {
		t.Errorf("%q, %v", got, err)
	}

	shell = up()
	_, err = shell.Run(ctx, "echo c >/proc/sysrq-trigger; sleep 600")
	var crashed *linux.CrashError
	if !errors.As(err, &crashed) || !strings.Contains(crashed.Line, "Kernel panic") && !strings.Contains(crashed.Line, "Internal error") && !strings.Contains(crashed.Line, "Unable to handle kernel") {
		t.Errorf("a panic: %v", err)
	}
}
