package serialconsole_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/onsi/gomega/gbytes"

	"github.com/boardspec/boardspec/serialconsole"
)

// flood is a board that prints without end, lines of 80 characters, until it
// has printed size bytes and then the line "the end". It is a port that nothing is
// written to.
type flood struct {
	left  int
	lines []byte
	ended chan struct{}
}

func newFlood(size int) *flood {
	return &flood{left: size, lines: bytes.Repeat([]byte(strings.Repeat("0123456789abcdef", 5)[:78]+"\r\n"), 400), ended: make(chan struct{})}
}

func (f *flood) Read(p []byte) (int, error) {
	switch {
	case f.left > 0:
		n := copy(p, f.lines[:min(len(f.lines), f.left)])
		f.left -= n
		return n, nil
	case f.left == 0:
		f.left = -1
		return copy(p, "\r\nthe end\r\n"), nil
	}
	<-f.ended
	return 0, io.EOF
}

func (f *flood) Write(p []byte) (int, error) { return len(p), nil }

func (f *flood) Close() error {
	close(f.ended)
	return nil
}

// patterns are what a command's end is told by, and what a crash is.
var patterns = []serialconsole.Pattern{
	serialconsole.Line(regexp.MustCompile(`^the (end)$`)),
	serialconsole.LineStart("=> "),
	serialconsole.Regexp(regexp.MustCompile(`^login: $`)),
	serialconsole.Line(regexp.MustCompile(`^("Synchronous Abort"|data abort|resetting \.\.\.)`)),
}

// 100 MiB pass, every byte looked at, in bounded memory.
func TestFlood(t *testing.T) {
	const size = 100 << 20
	seen := 0
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	board := newFlood(size)
	c := serialconsole.New(board, serialconsole.Config{Keep: 1 << 20})
	defer c.Close()
	stop := c.Watch(func(serialconsole.Match) { seen++ }, serialconsole.Literal("0123456789abcdef0123"))
	match, err := c.Expect(t.Context(), 0, patterns...)
	stop()
	if err != nil || match.Index != 0 || match.Start != size+2 || match.Groups[1] != "end" {
		t.Errorf("%+v, %v", match, err)
	}
	if seen < size/80 {
		t.Errorf("%d of %d lines were seen", seen, size/80)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 8<<20 {
		t.Errorf("%d MiB are kept", kept>>20)
	}
}

// A line that never ends is no worse than others.
func TestEndlessLine(t *testing.T) {
	port, board := net.Pipe()
	c := serialconsole.New(port, serialconsole.Config{Keep: 1 << 20})
	defer c.Close()
	go func() {
		piece := bytes.Repeat([]byte("#"), 1000)
		for range 20_000 {
			board.Write(piece)
		}
		io.WriteString(board, "\r\nthe end\r\n")
	}()
	if match, err := c.Expect(deadline(t), 0, patterns...); err != nil || match.Index != 0 {
		t.Errorf("%+v, %v", match, err)
	}
}

// BenchmarkFlood is the cost of a flood that is waited through, beside gbytes
// doing the same. gbytes keeps all of it and looks at all of it each time, so
// it gets a smaller one as well.
func BenchmarkFlood(b *testing.B) {
	for _, mib := range []int{1, 4, 100} {
		b.Run(fmt.Sprintf("MiB=%d/by=Console", mib), func(b *testing.B) {
			b.SetBytes(int64(mib) << 20)
			for b.Loop() {
				c := serialconsole.New(newFlood(mib<<20), serialconsole.Config{Keep: 1 << 20})
				if _, err := c.Expect(b.Context(), 0, patterns...); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
		if mib > 4 {
			continue // what gbytes takes grows with the square
		}
		b.Run(fmt.Sprintf("MiB=%d/by=gbytes", mib), func(b *testing.B) {
			b.SetBytes(int64(mib) << 20)
			for b.Loop() {
				board := newFlood(mib << 20)
				buffer := gbytes.BufferReader(board)
				detected := buffer.Detect(`(?m)^the end\r$`)
				<-detected
				buffer.CancelDetects()
				board.Close()
			}
		})
	}
}
