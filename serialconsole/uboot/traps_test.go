package uboot_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/serialconsole/uboot/uboottest"
)

// on returns a shell on a port, and a context of ten seconds.
func on(t testing.TB, port io.ReadWriteCloser, config uboot.Config) (context.Context, *uboot.Shell, *serialconsole.Console) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	console := serialconsole.New(port, serialconsole.Config{})
	t.Cleanup(func() {
		if err := console.Close(); err != nil {
			t.Error(err)
		}
	})
	return ctx, uboot.New(console, config), console
}

// What other systems stumbled over, each on a board that does it every time.
func TestTraps(t *testing.T) {
	t.Parallel()
	echoes := func(t *testing.T, ctx context.Context, shell *uboot.Shell) {
		t.Helper()
		for _, text := range []string{"one", "two", "three"} {
			if got, err := shell.Run(ctx, "echo "+text); err != nil || got != text {
				t.Errorf("echo %s: %q, %v", text, got, err)
			}
		}
		if _, err := shell.Run(ctx, "false"); err == nil {
			t.Error("a status was lost")
		}
	}
	for name, board := range map[string]*uboottest.Board{
		"a prompt that no one named":                   {Boot: "\r\nU-Boot 2025.01\r\n", Prompt: "ACME board> "},
		"a prompt that is printed anew behind itself":  {Prompt: "ACME>> ", QuietInterrupt: true},
		"a time before every line":                     {Each: "[2026-11-23 19:54:18.123] "},
		"a time before every line, and another prompt": {Each: "19:54:18.123456 > ", Prompt: "ACME# "},
		"seconds since power on before every line":     {Each: "[    0.123456] "},
		"escapes and NULs":                             {Boot: "\x1b[2J\x1b[?25h\x00\x00", Prompt: "\x1b[1;36m=> \x1b[0m"},
		"invalid UTF-8":                                {Boot: "\xff\xfe\x80 noise at power on \xc3"},
		"a banner that holds the prompt":               {Boot: "=> this is no prompt\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, shell, _ := on(t, board, uboot.Config{})
			echoes(t, ctx, shell)
		})
	}

	t.Run("a prompt inside a command's output, and a pause behind it", func(t *testing.T) {
		t.Parallel()
		board := &uboottest.Board{Answers: map[string][]uboottest.Answer{"cat": {{Output: "=> \r\n==> 1\r\n=> rm -rf\r\n"}}}}
		ctx, shell, _ := on(t, board, uboot.Config{})
		if got, err := shell.Run(ctx, "cat"); err != nil || got != "=> \n==> 1\n=> rm -rf" {
			t.Errorf("%q, %v", got, err)
		}
		echoes(t, ctx, shell)
	})

	t.Run("a command that pauses behind what may be a prompt", func(t *testing.T) {
		t.Parallel()
		ctx, shell, _ := start(t)
		for _, command := range []string{`echo ok; sleep 1`, `echo -n '=> '; sleep 1`} {
			if _, err := shell.Run(ctx, command); err != nil {
				t.Errorf("%s: %v", command, err)
			}
			// A line that counts as one that spoils characters would refuse this.
			if output, err := shell.Run(ctx, "base"); err != nil || output == "" {
				t.Errorf("behind %s: %q, %v", command, output, err)
			}
		}
	})

	t.Run("output of a driver between the commands", func(t *testing.T) {
		t.Parallel()
		board := new(uboottest.Board)
		ctx, shell, _ := on(t, board, uboot.Config{})
		for range 5 {
			board.Print("\r\nusb 1-1: device descriptor read/64, error -71\r\n")
			echoes(t, ctx, shell)
		}
	})

	t.Run("output of a driver in the middle of a command's", func(t *testing.T) {
		t.Parallel()
		board := new(uboottest.Board)
		board.OnEnter = func(line string) {
			if strings.HasPrefix(line, "echo") {
				board.Print("mmc0: card removed\r\n")
			}
		}
		ctx, shell, _ := on(t, board, uboot.Config{})
		if err := shell.Interrupt(ctx); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if got, err := shell.Run(ctx, "echo one"); err != nil || got != "mmc0: card removed\none" {
				t.Errorf("%q, %v", got, err)
			}
		}
	})

	t.Run("an echo that is cut in half", func(t *testing.T) {
		t.Parallel()
		board := new(uboottest.Board)
		ctx, shell, _ := on(t, &between{Board: board, at: "ree", print: "\r\nusb 1-1: new device\r\n", times: 2}, uboot.Config{})
		echoes(t, ctx, shell)
	})

	t.Run("a reset under a command", func(t *testing.T) {
		t.Parallel()
		board := &uboottest.Board{Answers: map[string][]uboottest.Answer{
			"bad": {{Output: "resetting ...\r\n\r\nU-Boot 2025.01\r\n\r\nDRAM:  512 MiB\r\n"}},
		}}
		ctx, shell, _ := on(t, board, uboot.Config{})
		_, err := shell.Run(ctx, "bad")
		var crash *uboot.CrashError
		if !errors.As(err, &crash) || crash.Command != "bad" || crash.Line != "resetting ..." {
			t.Errorf("error %v", err)
		}
		echoes(t, ctx, shell)
	})

	t.Run("a line whose other end does not read", func(t *testing.T) {
		t.Parallel()
		near, far := net.Pipe()
		defer far.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, shell, _ := on(t, near, uboot.Config{EchoTimeout: 10 * time.Millisecond})
		if _, err := shell.Run(ctx, "version"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
	})

	t.Run("a reset between the commands", func(t *testing.T) {
		t.Parallel()
		board := new(uboottest.Board)
		ctx, shell, console := on(t, board, uboot.Config{})
		echoes(t, ctx, shell)
		mark := console.Mark()
		board.Print("resetting ...\r\n\r\nU-Boot 2025.01\r\n\r\nDRAM:  512 MiB\r\n=> ")
		if _, err := console.Expect(ctx, mark, serialconsole.LineStart("=> ")); err != nil {
			t.Fatal(err)
		}
		_, err := shell.Run(ctx, "bootm")
		var crash *uboot.CrashError
		if !errors.As(err, &crash) || crash.Command != "bootm" || !strings.Contains(err.Error(), "DRAM") {
			t.Errorf("error %v", err)
		}
		echoes(t, ctx, shell)
	})

	t.Run("both network stacks tell a failure in their own way", func(t *testing.T) {
		t.Parallel()
		const command = "tftpboot 40200000 missing"
		for printed, code := range map[string]int{
			"TFTP error: 'File not found' (1)\r\nNot retrying...\r\n": 1, // net/tftp.c
			"TFTP error: 256 (File not found)\r\n":                    1, // net/lwip/tftp.c
			"TFTP error: 768 (disk gone)\r\n":                         3,
			"Timeout!\r\n":                                            -1,
			"tftp_get() error -4\r\n":                                 -1,
			"\r\nARP Retry count exceeded; starting again\r\n":        -1,
			"\r\nRetry count exceeded; starting again\r\n":            -1,
		} {
			board := &uboottest.Board{Answers: map[string][]uboottest.Answer{command: {{Output: "Loading: *\b\r\n" + printed, Status: 1}}}}
			ctx, shell, _ := on(t, board, uboot.Config{})
			_, err := shell.TFTPBoot(ctx, "missing", uboot.TFTPOptions{Addr: 0x40200000, WindowSize: 1})
			var failed *uboot.TransferError
			if !errors.As(err, &failed) || failed.Code != code || !strings.Contains(printed, failed.Reason) || failed.Reason == "" {
				t.Errorf("%q: %v, %+v", printed, err, failed)
			}
		}
	})

	t.Run("a board that needs time behind each character", func(t *testing.T) {
		t.Parallel()
		ctx, shell, _ := on(t, new(uboottest.Board), uboot.Config{Piece: 1, Delay: time.Millisecond})
		began := time.Now()
		echoes(t, ctx, shell)
		if took := time.Since(began); took < 100*time.Millisecond {
			t.Errorf("it was typed within %v", took)
		}
	})

	t.Run("keyed autoboot, whose password must be all that is typed", func(t *testing.T) {
		t.Parallel()
		board := &uboottest.Board{
			Boot: "\r\nU-Boot 2025.01\r\n", Autoboot: "Autoboot in 2 seconds\r\n",
			Stop: "s3cret", Starting: "Starting kernel ...\r\n",
		}
		ctx, shell, _ := on(t, board, uboot.Config{Stop: "s3cret"})
		echoes(t, ctx, shell)
	})

	t.Run("keyed autoboot where the board is at its prompt already", func(t *testing.T) {
		t.Parallel()
		ctx, shell, _ := on(t, new(uboottest.Board), uboot.Config{Stop: "s3cret"})
		echoes(t, ctx, shell)
	})

	t.Run("a line longer than the command line buffer", func(t *testing.T) {
		t.Parallel()
		ctx, shell, _ := on(t, &uboottest.Board{MaxLine: 64}, uboot.Config{MaxLine: 200, EchoTimeout: 5 * time.Millisecond})
		_, err := shell.Run(ctx, "echo "+strings.Repeat("x", 100))
		var noise *uboot.NoiseError
		if !errors.As(err, &noise) {
			t.Errorf("a line that U-Boot cuts: %v", err)
		}
	})

	t.Run("an empty line is never sent, which would run the last command again", func(t *testing.T) {
		t.Parallel()
		var lines []string
		board := &uboottest.Board{OnEnter: func(line string) { lines = append(lines, line) }}
		ctx, shell, console := on(t, board, uboot.Config{})
		echoes(t, ctx, shell)
		if err := shell.Interrupt(ctx); err != nil {
			t.Error(err)
		}
		console.Close()
		for _, line := range lines {
			if strings.TrimSpace(line) == "" {
				t.Errorf("lines %q", lines)
			}
		}
	})
}

// between prints something the first times that certain text is typed.
type between struct {
	*uboottest.Board
	at, print string
	times     int
}

func (b *between) Write(p []byte) (int, error) {
	if b.times > 0 && strings.Contains(string(p), b.at) {
		b.times--
		half := len(p) / 2
		b.Board.Write(p[:half])
		b.Print(b.print)
		n, err := b.Board.Write(p[half:])
		return half + n, err
	}
	return b.Board.Write(p)
}

// A board in Linux echoes Ctrl-C as a terminal does.
func TestLinuxIsReset(t *testing.T) {
	t.Parallel()
	// board plays a Linux until it is reset, then U-Boot.
	board := func(reset <-chan struct{}) io.ReadWriteCloser {
		near, far := net.Pipe()
		go func() {
			key := make([]byte, 1)
			for {
				if _, err := far.Read(key); err != nil {
					return
				}
				select {
				case <-reset:
					uboot := &uboottest.Board{Boot: "U-Boot 2025.01\r\n"}
					go io.Copy(far, uboot)
					io.Copy(uboot, far)
					uboot.Close()
					return
				default:
				}
				if key[0] == 3 {
					io.WriteString(far, "^C\r\n# ")
				}
			}
		}()
		return near
	}

	ctx, shell, _ := on(t, board(nil), uboot.Config{})
	if err := shell.Interrupt(ctx); err == nil || !strings.Contains(err.Error(), "as Linux does") {
		t.Errorf("without a way to reset it: %v", err)
	}

	reset := make(chan struct{})
	ctx, shell, _ = on(t, board(reset), uboot.Config{Reset: func(context.Context) error { close(reset); return nil }})
	if got, err := shell.Run(ctx, "echo U-Boot again"); err != nil || got != "U-Boot again" {
		t.Errorf("%q, %v", got, err)
	}
}
