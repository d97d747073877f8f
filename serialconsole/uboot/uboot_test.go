package uboot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"github.com/boardspec/boardspec/serialconsole/uboot/uboottest"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boardspec/boardspec/fixture/virtual"
	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
)

// start brings a real U-Boot to its prompt.
func start(t testing.TB) (context.Context, *uboot.Shell, *serialconsole.Console) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	board, err := virtual.StartProcess(ctx, virtual.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := board.Close(); err != nil {
			t.Error(err)
		}
	})
	console, shell := atPrompt(t, ctx, board)
	return ctx, shell, console
}

func atPrompt(t testing.TB, ctx context.Context, board *virtual.Board) (*serialconsole.Console, *uboot.Shell) {
	t.Helper()
	port, err := board.OpenConsole(ctx)
	if err != nil {
		t.Fatal(err)
	}
	console := serialconsole.New(port, serialconsole.Config{})
	t.Cleanup(func() { console.Close() })
	if err := board.On(ctx); err != nil {
		t.Fatal(err)
	}
	shell := uboot.New(console, uboot.Config{})
	if err := shell.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}
	return console, shell
}

func TestRunOnRealUBoot(t *testing.T) {
	ctx, shell, console := start(t)

	t.Run("returns what a command printed", func(t *testing.T) {
		for command, want := range map[string]string{
			"echo one two":          "one two",
			"echo one; echo two":    "one\ntwo",
			"true":                  "",
			"echo '=> '; echo done": "=> \ndone",
			"echo '# ; $x'":         "# ; $x",
		} {
			if got, err := shell.Run(ctx, command); err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", command, got, err, want)
			}
		}
	})

	t.Run("tells a command that failed", func(t *testing.T) {
		_, err := shell.Run(ctx, "echo before; false")
		var exit *uboot.ExitError
		if !errors.As(err, &exit) || exit.Status != 1 || exit.Output != "before" {
			t.Errorf("error %v, want exit status 1 behind \"before\"", err)
		}
	})

	t.Run("refuses what would not come back, before it is sent", func(t *testing.T) {
		mark := console.Mark()
		for command, want := range map[string]string{
			"":                       "not a whole command",
			"echo one;":              "not a whole command",
			"echo 'one":              "leaves a quote ' open",
			`echo "one`:              `leaves a quote " open`,
			`echo one\`:              "ends in a backslash",
			"echo one # two":         "holds a comment",
			"echo one\recho two":     `control character '\r'`,
			"echo \x03":              `control character '\x03'`,
			strings.Repeat("x", 300): "250 is the limit",
		} {
			_, err := shell.Run(ctx, command)
			if want == "250 is the limit" {
				want = "is the limit, past which U-Boot cuts the line or hangs"
			}
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.20q: error %v, want %q", command, err, want)
			}
		}
		if console.Mark() != mark {
			t.Errorf("something was sent: %q", console.Since(mark))
		}
	})

	t.Run("keeps every printable character in a variable", func(t *testing.T) {
		var all strings.Builder
		for c := byte(' '); c < 0x7f; c++ {
			all.WriteByte(c)
		}
		for _, value := range []string{all.String(), "'", `\`, `\'`, `''`, `a  b`, `$x ${y} "z"`, ` leading and trailing `, `#`} {
			if err := shell.Setenv(ctx, "v", value); err != nil {
				t.Fatal(err)
			}
			if got, err := shell.Getenv(ctx, "v"); err != nil || got != value {
				t.Errorf("%q came back as %q, %v", value, got, err)
			}
		}
		if err := shell.Setenv(ctx, "v", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := shell.Getenv(ctx, "v"); !errors.Is(err, uboot.ErrNotSet) {
			t.Errorf("a deleted variable: %v, want ErrNotSet", err)
		}
	})

	t.Run("fills memory and sums it up", func(t *testing.T) {
		for _, size := range []int64{0, 1, 3, 4, 4097, 1 << 20} {
			if err := shell.Fill(ctx, 0x40200000, size, 0xa5); err != nil {
				t.Fatal(err)
			}
			want := crc32.ChecksumIEEE(bytes.Repeat([]byte{0xa5}, int(size)))
			if got, err := shell.CRC32(ctx, 0x40200000, size); err != nil || got != want {
				t.Errorf("%d bytes: %08x, %v; want %08x", size, got, err, want)
			}
		}
	})

	t.Run("stops a command when its context ends, and finds the prompt again", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := shell.Run(short, "sleep 600"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		if got, err := shell.Run(ctx, "echo again"); err != nil || got != "again" {
			t.Errorf("the next command: %q, %v", got, err)
		}
	})

	t.Run("finds the prompt behind a half-typed line and a repeatable command", func(t *testing.T) {
		if _, err := io.WriteString(console, "echo 'half a li"); err != nil {
			t.Fatal(err)
		}
		if err := shell.Interrupt(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := shell.Run(ctx, "echo whole"); err != nil || got != "whole" {
			t.Errorf("%q, %v", got, err)
		}
	})

	t.Run("ends at once when the board resets under a command", func(t *testing.T) {
		_, err := shell.Run(ctx, "reset")
		var crash *uboot.CrashError
		if !errors.As(err, &crash) || crash.Command != "reset" {
			t.Errorf("error %v, want a *CrashError", err)
		}
		if got, err := shell.Run(ctx, "echo again"); err != nil || got != "again" {
			t.Errorf("the next command: %q, %v", got, err)
		}
	})

	t.Run("resets to the prompt", func(t *testing.T) {
		if err := shell.Setenv(ctx, "v", "gone after a reset"); err != nil {
			t.Fatal(err)
		}
		if err := shell.Reset(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := shell.Getenv(ctx, "v"); !errors.Is(err, uboot.ErrNotSet) {
			t.Errorf("the variable after the reset: %v", err)
		}
	})

	t.Run("ends at once when the board crashes", func(t *testing.T) {
		for _, command := range []string{"md 0xfffffff00000000 1", "echo -n Loading:; md 0xfffffff00000000 1"} {
			_, err := shell.Run(ctx, command)
			var crash *uboot.CrashError
			if !errors.As(err, &crash) || !strings.Contains(crash.Line, "Synchronous Abort") {
				t.Errorf("%s: error %v, want a *CrashError of a Synchronous Abort", command, err)
			}
		}
	})
}

// BenchmarkEcho is the time of one command on a virtual board, beside pexpect
// doing the same on the same U-Boot; pexpect reads no exit status.
func BenchmarkEcho(b *testing.B) {
	b.Run("by=Shell", func(b *testing.B) {
		ctx, shell, _ := start(b)
		for b.Loop() {
			if _, err := shell.Run(ctx, "echo"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by=pexpect", func(b *testing.B) {
		socket := startQEMU(b, b.Context(), b.TempDir(), recorded[0].program, strings.Fields(recorded[0].args)...)
		const commands = 1000
		loop := exec.CommandContext(b.Context(), "/usr/bin/python3", "testdata/pexpect_loop.py", socket, fmt.Sprint(commands))
		loop.Stderr = os.Stderr
		output, err := loop.Output()
		if err != nil {
			b.Fatalf("%v; it needs: apt-get install python3-pexpect", err)
		}
		var seconds float64
		if _, err := fmt.Sscan(string(output), &seconds); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			// It was measured once, by the program itself.
		}
		b.ReportMetric(seconds/commands*1e9, "ns/op")
	})
}

func ExampleQuote() {
	fmt.Println("setenv bootargs " + uboot.Quote(`root=/dev/vda label='a b'`))
	// Output: setenv bootargs 'root=/dev/vda label='\''a b'\'''
}

// FuzzAnswers has a board answer whatever it likes: a command comes to an end
// with an error, or with a result that its marker proves.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("=> "), []byte("<INTERRUPT>\r\n=> "))
	f.Add([]byte("echo BS''ABCDEF:$?:$?\r\nBSABCDEF:0:0\r\n=> "), []byte("\xff\x00\x1b["))
	f.Add([]byte("[  1.0] => "), []byte("\r\n"))
	f.Fuzz(func(t *testing.T, one, two []byte) {
		near, far := net.Pipe()
		go func() {
			typed := make([]byte, 256)
			for answers := [][]byte{one, two}; ; answers[0], answers[1] = answers[1], answers[0] {
				if _, err := far.Read(typed); err != nil {
					return
				}
				if _, err := far.Write(answers[0]); err != nil {
					return
				}
			}
		}()
		defer far.Close()
		console := serialconsole.New(near, serialconsole.Config{})
		defer console.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		shell := uboot.New(console, uboot.Config{EchoTimeout: time.Millisecond})
		if output, err := shell.Run(ctx, "echo one"); err == nil {
			t.Errorf("a board that answers %q and %q ran a command: %q", one, two, output)
		}
	})
}

// FuzzReplay plays a board from whatever recording, whose answers are parsed
// by every verb that parses.
func FuzzReplay(f *testing.F) {
	for _, machine := range recorded {
		recording, err := os.ReadFile(filepath.Join("testdata", machine.name+".console"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(recording)
	}
	f.Fuzz(func(t *testing.T, recording []byte) {
		board, err := uboottest.Parse(recording)
		if err != nil {
			return
		}
		console := serialconsole.New(board, serialconsole.Config{})
		defer console.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		shell := uboot.New(console, uboot.Config{EchoTimeout: time.Millisecond})
		// Whatever comes of it: no panic, and an end.
		session(ctx, shell)
		shell.Env(ctx)
		shell.Has(ctx, "md")
		shell.ReadMemory(ctx, 0x40200000, 0x20)
		shell.Compare(ctx, 0, 1, 1)
		shell.Hash(ctx, "sha256", 0, 1)
	})
}
