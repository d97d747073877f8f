package serialconsole

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// program is a port on the standard input and output of a program. When this
// process is killed, the end of its input tells the program.
type program struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *os.File
	said    *lastWords
	ended   chan struct{} // closed when it was waited for; err is set then
	err     error

	mu     sync.Mutex // guards closed
	closed bool
}

// grace is how long a program has to end by itself when its port is closed.
const grace = 2 * time.Second

func openProgram(ctx context.Context, line string) (io.ReadWriteCloser, error) {
	words, err := shellWords(line)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, errors.New("no program; it reads exec:PROGRAM ARGUMENTS")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &program{command: exec.Command(words[0], words[1:]...), said: new(lastWords), ended: make(chan struct{})}
	ownGroup(p.command)
	p.command.Stderr = p.said
	p.command.WaitDelay = grace // a child of it may hold its standard error open
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.out, p.command.Stdout = out, childOut
	err = p.command.Start()
	childOut.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	go func() {
		p.err = p.command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Read implements io.Reader. The program's end yields an error that wraps
// io.EOF and says how it ended, and what it wrote to its standard error.
func (p *program) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if err == nil || n > 0 {
		return n, nil
	}
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, ErrClosed
	}
	if !errors.Is(err, io.EOF) {
		return 0, err
	}
	<-p.ended // it closed its output, or ended
	if p.err == nil {
		return 0, io.EOF
	}
	return 0, fmt.Errorf("%w: %s: %w; it said: %s", io.EOF, p.command.Path, p.err, p.said)
}

// Write implements io.Writer.
func (p *program) Write(b []byte) (int, error) {
	n, err := p.in.Write(b)
	if err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.closed {
			return n, ErrClosed
		}
	}
	return n, err
}

// Close implements io.Closer: the program's input ends, and it and its children
// are ended, if need be by force.
func (p *program) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	p.in.Close()
	terminate(p.command)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
	}
	kill(p.command)
	<-p.ended
	return p.out.Close()
}

// lastWords keeps the end of what a program says.
type lastWords struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b...)
	w.text = w.text[max(0, len(w.text)-1024):]
	return len(b), nil
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if text := bytes.TrimSpace(w.text); len(text) > 0 {
		return string(text)
	}
	return "nothing"
}

// shellWords cuts a line into words at spaces; quotes keep them together.
func shellWords(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord := false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a quote %c is left open", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
