package serialconsole_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/boardspec/boardspec/serialconsole"
)

// board is the other end of a console's port.
func console(t testing.TB, config serialconsole.Config) (*serialconsole.Console, net.Conn) {
	t.Helper()
	port, board := net.Pipe()
	c := serialconsole.New(port, config)
	t.Cleanup(func() { c.Close(); board.Close() })
	return c, board
}

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestExpect(t *testing.T) {
	t.Parallel()
	prompt := serialconsole.LineStart("=> ")
	for _, test := range []struct {
		name     string
		chunks   []string
		patterns []serialconsole.Pattern
		index    int
		start    int64
		end      int64
	}{
		{"a literal", []string{"one two"}, []serialconsole.Pattern{serialconsole.Literal("two")}, 0, 4, 7},
		{"a literal that arrives in pieces", []string{"one t", "w", "o"}, []serialconsole.Pattern{serialconsole.Literal("two")}, 0, 4, 7},
		{"a literal that begins again", []string{"aab", "aac"}, []serialconsole.Pattern{serialconsole.Literal("aac")}, 0, 3, 6},
		{"the prompt at the very start", []string{"=> "}, []serialconsole.Pattern{prompt}, 0, 0, 3},
		{"the prompt behind a line, not the one in it", []string{"crc32 ==> 1234\r\n", "=", "> "}, []serialconsole.Pattern{prompt}, 0, 16, 19},
		{"the earliest of two, whatever their order", []string{"abc def"}, []serialconsole.Pattern{serialconsole.Literal("def"), serialconsole.Literal("abc")}, 1, 0, 3},
		{"the first named of two at one place", []string{"abc"}, []serialconsole.Pattern{serialconsole.Literal("abc"), serialconsole.Literal("ab")}, 0, 0, 3},
		{"a whole line", []string{"a1\r\nb", "2\r", "\n"}, []serialconsole.Pattern{serialconsole.Line(regexp.MustCompile(`^b\d$`))}, 0, 4, 8},
		{"text without its escapes and NULs", []string{"\x1b[1;3", "6mpro\x00mpt\x1b[0", "m"}, []serialconsole.Pattern{serialconsole.Literal("prompt")}, 0, 0, 6},
		{"text that is not UTF-8", []string{"\xff\xfe", "=> \r\n=> "}, []serialconsole.Pattern{prompt}, 0, 7, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c, board := console(t, serialconsole.Config{})
			go func() {
				for _, chunk := range test.chunks {
					io.WriteString(board, chunk)
				}
			}()
			match, err := c.Expect(deadline(t), 0, test.patterns...)
			if err != nil {
				t.Fatal(err)
			}
			if match.Index != test.index || match.Start != test.start || match.End != test.end {
				t.Errorf("match %+v, want pattern %d at %d to %d", match, test.index, test.start, test.end)
			}
		})
	}
}

func TestExpectEnds(t *testing.T) {
	t.Parallel()
	t.Run("with its context, also while the board never stops talking", func(t *testing.T) {
		c, board := console(t, serialconsole.Config{})
		go func() {
			for {
				if _, err := io.WriteString(board, "all is well\r\n"); err != nil {
					return
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.Expect(ctx, 0, serialconsole.Literal("trouble"))
		var stuck *serialconsole.ExpectError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &stuck) {
			t.Fatalf("error %v", err)
		}
		if !strings.Contains(err.Error(), `waiting for "trouble"`) || !strings.Contains(err.Error(), "all is well") || len(err.Error()) > 1000 {
			t.Errorf("the error does not say where it got stuck: %v", err)
		}
	})
	t.Run("when the other end hangs up", func(t *testing.T) {
		c, board := console(t, serialconsole.Config{})
		io.WriteString(board, "last words")
		board.Close()
		if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, io.EOF) {
			t.Errorf("error %v, want io.EOF", err)
		}
		if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("words")); err != nil {
			t.Errorf("what had arrived is lost: %v", err)
		}
	})
	t.Run("when the console is closed", func(t *testing.T) {
		c, _ := console(t, serialconsole.Config{})
		ended := make(chan error)
		go func() {
			_, err := c.Expect(deadline(t), 0, serialconsole.Literal("more"))
			ended <- err
		}()
		c.Close()
		if err := <-ended; !errors.Is(err, serialconsole.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, serialconsole.ErrClosed) {
			t.Errorf("a write: %v, want ErrClosed", err)
		}
	})
}

func TestConsoleIsBounded(t *testing.T) {
	t.Parallel()
	c, board := console(t, serialconsole.Config{Keep: 1000})
	line := []byte("0123456789abcdef0123456789abcde\n")
	for range 1000 {
		board.Write(line)
	}
	io.WriteString(board, "the end")
	match, err := c.Expect(deadline(t), 31000, serialconsole.Literal("the end"))
	if err != nil || match.Start != 32000 {
		t.Fatalf("offsets move: %+v, %v", match, err)
	}
	if kept := len(c.Since(0)); kept < 1000 || kept > 2000 {
		t.Errorf("%d bytes are kept, want 1000 to 2000", kept)
	}
	if tail := c.Tail(7); string(tail) != "the end" {
		t.Errorf("tail %q", tail)
	}
	if between := c.Between(32000, 32003); string(between) != "the" {
		t.Errorf("between %q", between)
	}
}

func TestTeeGetsEveryByteAsItCame(t *testing.T) {
	t.Parallel()
	var tee bytes.Buffer
	c, board := console(t, serialconsole.Config{Tee: &tee})
	io.WriteString(board, "\x1b[1mbold\x00\x1b[0m\r\n")
	if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("\n")); err != nil {
		t.Fatal(err)
	}
	// What was waited for is there at once.
	if tee.String() != "\x1b[1mbold\x00\x1b[0m\r\n" {
		t.Errorf("the tee got %q", tee.String())
	}
}

// What is not a sequence is never lost, in whatever pieces it comes.
func FuzzEscapes(f *testing.F) {
	f.Add("plain", uint8(1))
	f.Add("\x1b[2K\rHit any key\x1b[2K", uint8(3))
	f.Add("\x1b7\x1b[r\x1b[999;999H\x1b[6n\x1b8", uint8(2))
	f.Add("\x1b]0;title\x07text", uint8(5))
	f.Add("\x1becho", uint8(1))
	f.Fuzz(func(t *testing.T, text string, pieces uint8) {
		whole := stripped(t, []string{text})
		var parts []string
		for rest, size := text, int(pieces)+1; rest != ""; {
			n := min(size, len(rest))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		if got := stripped(t, parts); got != whole {
			t.Errorf("%q in pieces of %d: %q, whole: %q", text, pieces+1, got, whole)
		}
		if !strings.ContainsAny(text, "\x1b\x00") && whole != text {
			t.Errorf("%q became %q", text, whole)
		}
	})
}

func stripped(t *testing.T, parts []string) string {
	c, board := console(t, serialconsole.Config{})
	for _, part := range parts {
		io.WriteString(board, part)
	}
	board.Close()
	c.Expect(deadline(t), 0, serialconsole.Line(regexp.MustCompile(`[^\s\S]`)))
	return string(c.Since(0))
}

func TestOpenSerialLine(t *testing.T) {
	t.Parallel()
	board, line, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer board.Close()
	path := line.Name()
	line.Close()

	port, err := serialconsole.Open(deadline(t), path+"?baud=9600")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := serialconsole.Open(deadline(t), path); !errors.Is(err, serialconsole.ErrBusy) {
		t.Errorf("opened while open: %v, want ErrBusy", err)
	}
	c := serialconsole.New(port, serialconsole.Config{})
	io.WriteString(board, "=> ")
	if _, err := c.Expect(deadline(t), 0, serialconsole.LineStart("=> ")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "reset\r"); err != nil {
		t.Fatal(err)
	}
	typed := make([]byte, 6)
	if _, err := io.ReadFull(board, typed); err != nil || string(typed) != "reset\r" {
		t.Errorf("the board read %q, %v", typed, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, serialconsole.ErrClosed) {
		t.Errorf("after our own close: %v, want ErrClosed", err)
	}

	port, err = serialconsole.Open(deadline(t), path)
	if err != nil {
		t.Fatalf("opened again: %v", err)
	}
	c = serialconsole.New(port, serialconsole.Config{})
	defer c.Close()
	board.Close()
	if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, serialconsole.ErrHangup) {
		t.Errorf("after the other end went: %v, want ErrHangup", err)
	}
}

func TestOpenSockets(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			place := "127.0.0.1:0"
			if network == "unix" {
				place = filepath.Join(t.TempDir(), "console")
			}
			listener, err := net.Listen(network, place)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			port, err := serialconsole.Open(deadline(t), network+"://"+listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			c := serialconsole.New(port, serialconsole.Config{})
			defer c.Close()
			board, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(board, "=> ")
			if _, err := c.Expect(deadline(t), 0, serialconsole.LineStart("=> ")); err != nil {
				t.Error(err)
			}
			board.Close()
			if _, err := c.Expect(deadline(t), 0, serialconsole.Literal("more")); !errors.Is(err, io.EOF) {
				t.Errorf("after the other end closed: %v, want io.EOF", err)
			}
		})
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"":                        "an address is the path of a serial line, usb:?serial=NUMBER, tcp://host:port, telnet://host:port, unix:///path or exec:PROGRAM ARGUMENTS",
		"http://lab:80":           "an address is the path of a serial line",
		"tcp://lab":               "it reads tcp://host:port",
		"tcp://lab:80?baud=9600":  "unknown parameter baud; there are none",
		"/dev/no-such-tty":        "no such file or directory; ls /dev/serial/by-id",
		"/dev/ttyS0?baud=fast":    "baud=fast is not a number from 50 to 4000000",
		"/dev/ttyS0?data=9":       "data=9 is not a number from 5 to 8",
		"/dev/ttyS0?parity=maybe": "parity=maybe is none of none, odd and even",
		"/dev/ttyS0?bauds=9600":   "unknown parameter bauds; there are baud, data, parity, stop",
		"/dev/ttyS0?%zz":          "name=value&name=value",
		file:                      "serialconsole: open " + file,
	} {
		port, err := serialconsole.Open(deadline(t), address)
		if err == nil {
			port.Close()
			t.Errorf("%s: it opened", address)
			continue
		}
		if !strings.HasPrefix(err.Error(), "serialconsole: open "+address+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", address, err, want)
		}
	}
}
