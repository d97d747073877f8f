package uboot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
)

// Config says what is special about a board's U-Boot.
type Config struct {
	Prompt  string // CONFIG_SYS_PROMPT; "=> " if empty
	MaxLine int    // characters U-Boot takes in one line, below CONFIG_SYS_CBSIZE; 250 if zero
	Piece   int    // characters sent before their echo is waited for; 16 if zero, a UART's FIFO
}

// Shell is U-Boot's command line at the other end of a console.
type Shell struct {
	console *serialconsole.Console
	config  Config
	lost    bool // where U-Boot is, is not known: find the prompt first
}

// New returns a Shell on a console, which stays the caller's. It neither sends
// nor waits.
func New(console *serialconsole.Console, config Config) *Shell {
	if config.Prompt == "" {
		config.Prompt = "=> "
	}
	if config.MaxLine == 0 {
		config.MaxLine = 250
	}
	if config.Piece == 0 {
		config.Piece = 16
	}
	return &Shell{console: console, config: config, lost: true}
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Command string
	Status  int // $?
	Output  string
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("uboot: %s: exit status %d", e.Command, e.Status)
	}
	return fmt.Sprintf("uboot: %s: exit status %d: %s", e.Command, e.Status, lastLine(e.Output))
}

// CrashError is a board that crashed or reset while a command ran.
type CrashError struct {
	Command string // empty while U-Boot booted
	Line    string // the line that shows it
}

// Error implements error.
func (e *CrashError) Error() string {
	if e.Command == "" {
		return fmt.Sprintf("uboot: the board crashed while it booted: %s", e.Line)
	}
	return fmt.Sprintf("uboot: %s: the board crashed or reset: %s", e.Command, e.Line)
}

// crash matches lines that U-Boot prints only when it does not return to its
// prompt: arch/arm/lib/interrupts*.c, arch/riscv/lib/interrupts.c, lib/hang.c,
// lib/panic.c; and those that it prints when it starts, of SPL and of board_init_f.
var crash = regexp.MustCompile(`^"?(Synchronous Abort|"Synchronous Abort"|"Error" handler|data abort|prefetch abort|undefined instruction|software interrupt|Unhandled exception|### ERROR ### Please RESET the board ###|resetting \.\.\.|Resetting CPU|U-Boot SPL [0-9]|DRAM: )`)

// controlC stops what runs, and is harmless at the prompt. An empty line is
// not: it repeats the last command.
const controlC = "\x03"

// nudge is how long Interrupt waits for the prompt before it sends Ctrl-C
// (again). U-Boot says nothing when it can be stopped where bootdelay is 0 or
// the console is silent.
const nudge = 100 * time.Millisecond

// Interrupt brings U-Boot to its prompt, from power on, from its autoboot
// countdown, from a prompt with a half-typed line, or from a command that
// Ctrl-C stops. It blocks until then or until ctx ends.
func (s *Shell) Interrupt(ctx context.Context) error {
	from := s.console.Mark()
	send := func() error {
		_, err := s.console.Write([]byte(controlC))
		return err
	}
	if err := send(); err != nil {
		return fmt.Errorf("uboot: interrupt: %w", err)
	}
	for {
		// Each wait is short; a board that prints all the time is sent Ctrl-C as
		// often as one that is silent.
		short, cancel := context.WithTimeout(ctx, nudge)
		match, err := s.console.Expect(short, from,
			serialconsole.LineStart(s.config.Prompt),
			serialconsole.Literal("autoboot"))
		cancel()
		switch {
		case err == nil && match.Index == 0:
			from = match.End
			synced, err := s.sync(ctx)
			if err != nil {
				return err
			}
			if synced {
				return nil
			}
			continue
		case err == nil:
			from = match.End
		case ctx.Err() != nil:
			return fmt.Errorf("uboot: reach the prompt %q: %w", s.config.Prompt, s.noPrompt(ctx, err))
		case !errors.Is(err, context.DeadlineExceeded):
			return fmt.Errorf("uboot: reach the prompt %q: %w", s.config.Prompt, err)
		}
		if err := send(); err != nil {
			return fmt.Errorf("uboot: interrupt: %w", err)
		}
	}
}

// noPrompt adds to the error what a person should look at.
func (s *Shell) noPrompt(ctx context.Context, err error) error {
	if len(s.console.Tail(1)) == 0 {
		return fmt.Errorf("%w: the board printed nothing at all: is it powered, is this its console, does the baud rate fit?", context.Cause(ctx))
	}
	return err
}

// syncTime is how long the prompt's own answer to an echo may take before the
// prompt is taken for a likeness of it.
const syncTime = time.Second

// sync makes sure that a prompt is U-Boot's and that nothing else is under
// way: a marker that is echoed back and printed can only come from here.
func (s *Shell) sync(ctx context.Context) (bool, error) {
	short, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	m := newMarker()
	from := s.console.Mark()
	if _, err := s.console.Write([]byte(m.command() + "\r")); err != nil {
		return false, fmt.Errorf("uboot: reach the prompt: %w", err)
	}
	match, err := s.console.Expect(short, from, m.pattern())
	if err == nil {
		_, err = s.console.Expect(short, match.End, serialconsole.LineStart(s.config.Prompt))
	}
	switch {
	case err == nil:
		s.lost = false
		return true, nil
	case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Errorf("uboot: reach the prompt: %w", err)
	}
	return false, nil
}

// marker tells the end of a command's output. It is typed in two halves, so
// that its echo does not spell it.
type marker string

func newMarker() marker {
	// Letters that spell no word a pattern might look for.
	return marker(rand.Text()[:6])
}

func (m marker) command() string { return "echo BS" + "''" + string(m) + ":$?" }

func (m marker) pattern() serialconsole.Pattern {
	return serialconsole.Line(regexp.MustCompile(`BS` + string(m) + `:(.*)$`))
}

// Run runs one command line and returns what it printed, with lines ended by
// "\n" and without the last line's end. A command whose exit status is not 0
// yields its output and an *ExitError. A U-Boot without the hush parser has no
// exit status; there Run cannot fail for it.
//
// A line that U-Boot would cut, that holds control characters, or that would
// not end (an open quote, a comment) is refused before it is sent.
func (s *Shell) Run(ctx context.Context, command string) (string, error) {
	if err := s.check(command); err != nil {
		return "", err
	}
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return "", err
		}
	}
	m := newMarker()
	// From here to the marker's prompt U-Boot is busy.
	s.lost = true
	output, status, err := s.run(ctx, command, m)
	if err != nil {
		if ctx.Err() != nil {
			// So that the board is at its prompt when it is looked at next.
			_, _ = s.console.Write([]byte(controlC))
		}
		return output, err
	}
	s.lost = false
	if status != 0 {
		return output, &ExitError{Command: command, Status: status, Output: output}
	}
	return output, nil
}

func (s *Shell) run(ctx context.Context, command string, m marker) (output string, status int, err error) {
	from, err := s.typeLine(ctx, command+"; "+m.command())
	if err != nil {
		return "", 0, fmt.Errorf("uboot: %s: %w", command, err)
	}
	match, err := s.console.Expect(ctx, from, m.pattern(), serialconsole.Line(crash))
	if err != nil {
		return clean(s.console.Since(from)), 0, fmt.Errorf("uboot: %s: %w", command, err)
	}
	if match.Index == 1 {
		return clean(s.console.Between(from, match.Start)), 0, &CrashError{Command: command, Line: match.Groups[0]}
	}
	// Output without a line's end of its own stands before the marker.
	text := string(s.console.Between(from, match.End))
	output = clean([]byte(text[:strings.LastIndex(text, "BS"+string(m))]))
	if _, err := s.console.Expect(ctx, match.End, serialconsole.LineStart(s.config.Prompt)); err != nil {
		return output, 0, fmt.Errorf("uboot: %s: %w", command, err)
	}
	// Without the hush parser $? is printed as it is: there is no status.
	if match.Groups[1] != "$?" {
		if status, err = strconv.Atoi(match.Groups[1]); err != nil {
			return output, 0, fmt.Errorf("uboot: %s: its exit status was disturbed: %q", command, match.Groups[0])
		}
	}
	return output, status, nil
}

// typeLine types a line, repairs what the wire spoiled, and sends Enter. It
// returns the offset behind the line's echo.
func (s *Shell) typeLine(ctx context.Context, line string) (int64, error) {
	for attempt := 1; ; attempt++ {
		from := s.console.Mark()
		ok, err := s.typePieces(ctx, line, from)
		if err != nil {
			return 0, err
		}
		if ok {
			end := from + int64(len(line))
			if _, err := s.console.Write([]byte("\r")); err != nil {
				return 0, err
			}
			match, err := s.console.Expect(ctx, end, serialconsole.Literal("\n"))
			if err != nil {
				return 0, err
			}
			return match.End, nil
		}
		if attempt == typeAttempts {
			return 0, fmt.Errorf("type %q: its echo differed %d times, last %q: characters are lost on the line", line, attempt, s.console.Since(from))
		}
		// Drop the spoiled line and begin anew on a fresh prompt.
		if err := s.Interrupt(ctx); err != nil {
			return 0, err
		}
	}
}

const typeAttempts = 5

// echoTime is how long a piece's echo may be outstanding before it is taken
// for lost.
const echoTime = 500 * time.Millisecond

// typePieces reports whether all of the line was echoed as it was typed.
func (s *Shell) typePieces(ctx context.Context, line string, from int64) (bool, error) {
	for sent := 0; sent < len(line); {
		piece := line[sent:min(len(line), sent+s.config.Piece)]
		if _, err := s.console.Write([]byte(piece)); err != nil {
			return false, err
		}
		sent += len(piece)
		short, cancel := context.WithTimeout(ctx, echoTime)
		err := s.console.WaitFor(short, from+int64(sent))
		cancel()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return false, err
		}
		if string(s.console.Since(from)) != line[:sent] {
			return false, nil
		}
	}
	return true, nil
}

// check refuses a command that would not come back.
func (s *Shell) check(command string) error {
	line := command + "; " + marker("xxxxxx").command()
	if len(line) > s.config.MaxLine {
		return fmt.Errorf("uboot: a command of %d characters: %d is the limit, past which U-Boot cuts the line or hangs: %.40q",
			len(command), s.config.MaxLine-(len(line)-len(command)), command)
	}
	var quote byte
	wordStart := true
	for i := 0; i < len(command); i++ {
		c := command[i]
		switch {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("uboot: %q holds the control character %q", command, c)
		case c == '\\' && quote != '\'':
			if i++; i == len(command) {
				return fmt.Errorf("uboot: %q ends in a backslash, which would join the next line to it", command)
			}
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '#' && wordStart:
			return fmt.Errorf("uboot: %q holds a comment; quote the # if it is meant", command)
		}
		wordStart = c == ' ' || c == ';'
	}
	if quote != 0 {
		return fmt.Errorf("uboot: %q leaves a quote %c open", command, quote)
	}
	if trimmed := strings.TrimRight(command, " "); trimmed == "" || strings.HasSuffix(trimmed, ";") || strings.HasSuffix(trimmed, "&") || strings.HasSuffix(trimmed, "|") {
		return fmt.Errorf("uboot: %q is not a whole command", command)
	}
	return nil
}

// clean makes Go text of console text.
func clean(text []byte) string {
	return strings.TrimSuffix(strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\r", ""), "\n")
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
