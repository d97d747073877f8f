package uboot_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
	"github.com/boardspec/boardspec/serialconsole/uboot/uboottest"
)

// latePort is a board on a line of which every character arrives by itself, and
// some late or never.
type latePort struct {
	*uboottest.Board
	time   time.Duration // that one is late
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards all below
	late    []string   // behind each of these one is late, once
	lose    []string   // behind each of these one is lost, once
	dice    *rand.Rand // for those that are late by chance, each hundredth; nil for none
	read    string     // what came
	waiting []byte     // what comes
	entered []string
	held    int
}

func newLatePort(board *uboottest.Board) *latePort {
	p := &latePort{Board: board, time: 150 * time.Millisecond, closed: make(chan struct{})}
	board.OnEnter = func(line string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !strings.HasPrefix(line, "echo BS''") { // of Interrupt
			p.entered = append(p.entered, line)
		}
	}
	return p
}

// take reports whether the last of a text is one of those behind which
// something happens, which then happened.
func take(behind *[]string, text string) bool {
	for i, end := range *behind {
		if strings.HasSuffix(text, end) {
			*behind = append((*behind)[:i:i], (*behind)[i+1:]...)
			return true
		}
	}
	return false
}

func (p *latePort) Read(b []byte) (int, error) {
	for {
		if len(p.waiting) == 0 {
			p.waiting = make([]byte, 1024)
			n, err := p.Board.Read(p.waiting)
			p.waiting = p.waiting[:n]
			if err != nil {
				return 0, err
			}
		}
		p.mu.Lock()
		late := take(&p.late, p.read) || p.dice != nil && p.dice.IntN(100) == 0
		lost := take(&p.lose, p.read)
		if late {
			p.held++
		}
		p.mu.Unlock()
		if late {
			select {
			case <-time.After(p.time):
			case <-p.closed:
				return 0, net.ErrClosed
			}
		}
		b[0], p.waiting = p.waiting[0], p.waiting[1:]
		if !lost {
			p.mu.Lock()
			p.read += string(b[:1])
			p.mu.Unlock()
			return 1, nil
		}
	}
}

func (p *latePort) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Board.Close()
}

// atPrompt returns a shell that is at its prompt, whose commands are counted
// from here on.
func (p *latePort) atPrompt(t *testing.T, config uboot.Config) (context.Context, *uboot.Shell) {
	t.Helper()
	ctx, shell, _ := on(t, p, config)
	if err := shell.Interrupt(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, shell
}

func (p *latePort) set(late, lose []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late, p.lose = late, lose
}

// ran returns how often the lines that begin with a command were entered.
func (p *latePort) ran(command string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.entered {
		if strings.HasPrefix(line, command+"; echo BS''") {
			n++
		}
	}
	return n
}

// once are the answers of a command that may not be run twice.
func once(output string) map[string][]uboottest.Answer {
	return map[string][]uboottest.Answer{"once": {{Output: output}}}
}

// What is late, of whatever a board prints, is neither lost nor spoiled: each
// command runs once, its result is its own, and the line stays one that is
// trusted.
func TestLateIsNotLost(t *testing.T) {
	t.Parallel()
	for name, late := range map[string][]string{
		"an echo":                         {"=> "},
		"half an echo":                    {"=> once"},
		"the end of an echo":              {":$?:$"},
		"every piece's echo":              {"=> ", "=> once; echo BS''", ":$?:$"},
		"the echo of Enter":               {":$?:$?"},
		"half the echo of Enter":          {":$?:$?\r"},
		"the output":                      {":$?:$?\r\n"},
		"the output behind an empty line": {":$?:$?\r\n\r\n"},
		"the output's likeness":           {"\r\n=> ", "\r\n=>  "},
		"the marker":                      {"printed\r\n"},
		"half the marker":                 {"printed\r\nBS"},
		"the marker's end":                {":0:0"},
		"half of the marker's end":        {":0:0\r"},
		"the prompt":                      {":0:0\r\n"},
		"half the prompt":                 {":0:0\r\n=>"},
		"the prompt and the next echo":    {":0:0\r\n", "=> echo"},
		"the echo and that of Enter":      {":$?:$", ":$?:$?"},
		"an echo, a probe, and Enter":     {"=> once; echo BS''", " \b", ":$?:$?", ":0:0\r\n"},
	} {
		// Beyond the first wait, and beyond the last.
		for _, timeout := range []time.Duration{50 * time.Millisecond, 10 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/%v", name, timeout), func(t *testing.T) {
				t.Parallel()
				const output = "\r\n=>  printed\r\n"
				port := newLatePort(&uboottest.Board{Answers: once(output)})
				ctx, shell := port.atPrompt(t, uboot.Config{EchoTimeout: timeout})
				port.set(late, nil)
				for i := range 3 {
					if got, err := shell.Run(ctx, "once"); err != nil || got != "\n=>  printed" {
						t.Errorf("command %d: %q, %v", i, got, err)
					}
				}
				if n := port.ran("once"); n != 3 {
					t.Errorf("3 commands ran %d times", n)
				}
				if len(port.late) > 0 {
					t.Errorf("nothing was late behind %q: %q", port.late, port.read)
				}
			})
		}
	}

	t.Run("whatever it is", func(t *testing.T) {
		t.Parallel()
		port := newLatePort(&uboottest.Board{Answers: once("\r\n=>  printed\r\n")})
		port.time = 15 * time.Millisecond
		ctx, shell := port.atPrompt(t, uboot.Config{EchoTimeout: 5 * time.Millisecond})
		port.mu.Lock()
		port.dice = rand.New(rand.NewPCG(7, 7))
		port.mu.Unlock()
		commands := 0
		for began := time.Now(); time.Since(began) < 4*time.Second; commands++ {
			if got, err := shell.Run(ctx, "once"); err != nil || got != "\n=>  printed" {
				t.Fatalf("command %d: %q, %v", commands, got, err)
			}
		}
		if n := port.ran("once"); n != commands {
			t.Errorf("%d commands ran %d times", commands, n)
		}
		t.Logf("%d commands, %d times late", commands, port.held)
	})
}

// What is lost is found, and no command runs twice for it.
func TestLostIsFound(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string][]string{
		"the end of a piece's echo": {"=> once; echo BS'"},
		"the end of an echo":        {":$?:$"},
		"the echo of Enter":         {":$?:$?", ":$?:$?"},
		"the end of Enter's echo":   {":$?:$?\r"},
	} {
		for _, output := range []string{"", "printed\r\n"} {
			t.Run(fmt.Sprintf("%s, output %q", name, output), func(t *testing.T) {
				t.Parallel()
				port := newLatePort(&uboottest.Board{Answers: once(output)})
				ctx, shell := port.atPrompt(t, uboot.Config{EchoTimeout: 20 * time.Millisecond})
				port.set(nil, lose)
				for range 2 {
					_, err := shell.Run(ctx, "once")
					var noise *uboot.NoiseError
					if output != "" && !errors.As(err, &noise) || output == "" && err != nil {
						t.Errorf("error %v", err)
					}
				}
				if n := port.ran("once"); n != 2 {
					t.Errorf("2 commands ran %d times", n)
				}
			})
		}
	}

	for name, typed := range map[string]string{"Enter is lost": "", "Enter becomes a letter": "M"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			port := newLatePort(&uboottest.Board{Answers: once("printed\r\n")})
			console := serialconsole.New(&enterPort{latePort: port, typed: typed}, serialconsole.Config{})
			defer console.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			shell := uboot.New(console, uboot.Config{EchoTimeout: 20 * time.Millisecond})
			if err := shell.Interrupt(ctx); err != nil {
				t.Fatal(err)
			}
			got, err := shell.Run(ctx, "once")
			var noise *uboot.NoiseError
			if !errors.As(err, &noise) || got != "printed" {
				t.Errorf("%q, %v; want a *NoiseError", got, err)
			}
			if n := port.ran("once"); n != 1 || len(port.entered) != 1 {
				t.Errorf("it ran %d times, entered were %q", n, port.entered)
			}
		})
	}
}

// enterPort spoils the first Enter that is typed by itself.
type enterPort struct {
	*latePort
	typed   string
	spoiled bool
}

func (p *enterPort) Write(b []byte) (int, error) {
	if string(b) == "\r" && !p.spoiled {
		p.spoiled = true
		if _, err := p.latePort.Write([]byte(p.typed)); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	return p.latePort.Write(b)
}
