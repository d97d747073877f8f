package serialconsole_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/boardspec/boardspec/serialconsole"
)

// recorded is a transcript of a short session, closed and opened again.
func recorded(t *testing.T) *serialconsole.Transcript {
	t.Helper()
	path := filepath.Join(t.TempDir(), "transcript")
	transcript, err := serialconsole.CreateTranscript(path)
	if err != nil {
		t.Fatal(err)
	}
	port, board := net.Pipe()
	c := serialconsole.New(port, serialconsole.Config{Transcript: transcript})
	io.WriteString(board, "\x1b[1mU-Boot\x1b[0m gr\xc3")
	io.WriteString(board, "\xbc\xc3\x9ft\r\n=> ")
	go func() {
		io.ReadFull(board, make([]byte, 5))
		io.WriteString(board, "echo\r\n\xff\r\n=> ")
	}()
	if _, err := c.Expect(deadline(t), 0, serialconsole.LineStart("=> ")); err != nil {
		t.Fatal(err)
	}
	mark := c.Mark()
	io.WriteString(c, "echo\r")
	if _, err := c.Expect(deadline(t), mark, serialconsole.LineStart("=> ")); err != nil {
		t.Fatal(err)
	}
	transcript.Note("power off")
	c.Close()
	if err := transcript.Close(); err != nil {
		t.Fatal(err)
	}
	if transcript, err = serialconsole.OpenTranscript(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { transcript.Close() })
	return transcript
}

func TestTranscript(t *testing.T) {
	t.Parallel()
	transcript := recorded(t)

	t.Run("has every byte of both directions, in order", func(t *testing.T) {
		got := make(map[serialconsole.EventKind]string)
		var order strings.Builder
		for event, err := range transcript.Events() {
			if err != nil {
				t.Fatal(err)
			}
			if event.Offset != int64(len(got[event.Kind])) {
				t.Errorf("offset %d of %q, want %d", event.Offset, event.Data, len(got[event.Kind]))
			}
			got[event.Kind] += string(event.Data)
			order.WriteByte(byte(event.Kind))
		}
		want := "\x1b[1mU-Boot\x1b[0m gr\xc3\xbc\xc3\x9ft\r\n=> echo\r\n\xff\r\n=> "
		if got[serialconsole.Received] != want || got[serialconsole.Sent] != "echo\r" || got[serialconsole.Note] != "power off" {
			t.Errorf("%q", got)
		}
		if order.String() != "ooiom" {
			t.Errorf("order %s", order.String())
		}
	})

	t.Run("as text", func(t *testing.T) {
		var text bytes.Buffer
		if err := transcript.WriteText(&text); err != nil || text.String() != "\x1b[1mU-Boot\x1b[0m gr\xc3\xbc\xc3\x9ft\r\n=> echo\r\n\xff\r\n=> " {
			t.Errorf("%q, %v", text.String(), err)
		}
	})

	t.Run("as text with times", func(t *testing.T) {
		var text bytes.Buffer
		if err := transcript.WriteTimed(&text); err != nil {
			t.Fatal(err)
		}
		got := regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.\d{6} `).ReplaceAllString(text.String(), "")
		want := "< \\x1b[1mU-Boot\\x1b[0m grüßt\n< => \n> echo\\x0d\n< echo\n< \\xff\n< => \n# power off\n"
		if got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})

	t.Run("as an asciicast, which asciinema replays", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "session.cast")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(transcript.WriteAsciicast(file), file.Close()); err != nil {
			t.Fatal(err)
		}
		cast, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(strings.TrimSpace(string(cast)), "\n") {
			var value any
			if err := json.Unmarshal([]byte(line), &value); err != nil {
				t.Errorf("line %d: %v: %s", i, err, line)
			}
		}
		// It wants a terminal, and a language that has all characters.
		play := exec.Command("script", "--quiet", "--return", "--command", "asciinema cat "+path, "/dev/null")
		play.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TERM=xterm")
		played, err := play.CombinedOutput()
		if err != nil || !strings.Contains(string(played), "U-Boot\x1b[0m grüßt") {
			t.Errorf("asciinema cat: %v: %q; it comes with: apt-get install asciinema", err, played)
		}
	})
}

func TestTranscriptsThatAreNone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	whole := recordedBytes(t)
	for name, test := range map[string]struct {
		content string
		want    string
	}{
		"another file": {"something else that is long enough to hold the header of one", "this is no transcript"},
		"an empty one": {"", "this is no transcript"},
		"a cut one":    {whole[:len(whole)-3], io.ErrUnexpectedEOF.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(test.content), 0o644); err != nil {
				t.Fatal(err)
			}
			transcript, err := serialconsole.OpenTranscript(path)
			if err != nil {
				t.Fatal(err)
			}
			defer transcript.Close()
			if err := transcript.WriteText(io.Discard); err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
	if _, err := serialconsole.OpenTranscript("/no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func recordedBytes(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "whole")
	transcript, err := serialconsole.CreateTranscript(path)
	if err != nil {
		t.Fatal(err)
	}
	transcript.Note("power on")
	if err := transcript.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(whole)
}
