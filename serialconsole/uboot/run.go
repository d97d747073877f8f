package uboot

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
)

// crash matches lines that U-Boot prints only when it does not return to its
// prompt: arch/arm/lib/interrupts*.c, arch/riscv/lib/interrupts.c,
// arch/x86/cpu/i386/interrupt.c, lib/hang.c, lib/panic.c; and those that it
// prints when it starts, of SPL and of board_init_f. The first may stand behind
// what a command has begun to print.
var crash = regexp.MustCompile(`^(?:` + stamp + `)?(.*"Synchronous Abort" handler|"Error" handler|data abort|prefetch abort|undefined instruction|software interrupt|Unhandled exception|### ERROR ### Please RESET the board ###|resetting \.\.\.|Resetting CPU|U-Boot SPL [0-9]|DRAM: )`)

// marker tells the end of a command's output. It is typed in two halves, so
// that its echo does not spell it.
type marker string

func newMarker() marker {
	// Letters that spell no word a pattern might look for.
	return marker(rand.Text()[:6])
}

// The status is printed twice, since a spoiled digit is a digit.
func (m marker) command() string { return "echo BS" + "''" + string(m) + ":$?:$?" }

func (m marker) pattern() serialconsole.Pattern {
	return serialconsole.Line(regexp.MustCompile(`^.*BS` + string(m) + `:(.*)$`))
}

// Run runs one command line and returns what it printed, with lines ended by
// "\n" and without the last line's end. A command whose exit status is not 0
// yields its output and an *ExitError, a board that crashes or resets under it a
// *CrashError. A U-Boot without the hush parser has no exit status; there Run
// cannot fail for it.
//
// A line that U-Boot would cut, that holds control characters, or that would
// not end (an open quote, a comment) is refused before it is sent. Each piece
// of it is typed when the echo of the one before it is right, and Enter when
// all is. An echo that is late is waited for, and not taken for one that is lost.
// On a line that was seen to spoil characters, commands that only read are run
// until two results agree; what cannot be trusted is a *NoiseError.
//
// When ctx ends, what runs is stopped with Ctrl-C, and the next command finds
// the prompt again.
func (s *Shell) Run(ctx context.Context, command string) (string, error) {
	output, err := s.run(ctx, command)
	if s.noisy == 0 {
		return output, err
	}
	s.noisy--
	var exit *ExitError
	if err != nil && !errors.As(err, &exit) {
		return output, err
	}
	if !onlyReads(command) {
		if output == "" || err != nil {
			return output, err
		}
		return output, &NoiseError{Command: command, Output: output, Reason: "it ran, but its output cannot be proved, for it may not be run again"}
	}
	for range typeAttempts {
		again, err := s.run(ctx, command)
		if err != nil && !errors.As(err, &exit) {
			return again, err
		}
		if again == output {
			return again, err
		}
		output = again
	}
	return output, &NoiseError{Command: command, Output: output, Reason: "no two of its outputs agree"}
}

// readers are commands that change nothing, or their beginnings.
var readers = []string{"echo", "printenv", "version", "crc32", "md", "help", "bdinfo", "cmp", "true", "false", "test", "itest",
	"coninfo", "date", "ls", "fatls", "ext4ls", "net list", "env print", "mmc info", "mmc list", "mii info"}

// onlyReads reports whether a command line may be run twice.
func onlyReads(line string) bool {
	for command := range strings.SplitSeq(line, ";") {
		command = strings.TrimSpace(command)
		if !slices.ContainsFunc(readers, func(reader string) bool {
			rest, ok := strings.CutPrefix(command, reader)
			return ok && (rest == "" || rest[0] == ' ' || rest[0] == '.')
		}) {
			return false
		}
	}
	return true
}

// run runs a command once.
func (s *Shell) run(ctx context.Context, command string) (string, error) {
	if err := s.check(command); err != nil {
		return "", err
	}
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return "", err
		}
	}
	if line := s.crashed.Swap(nil); line != nil {
		s.lost = true
		return "", &CrashError{Command: command, Line: *line + " (before the command was typed: what was set or loaded is gone)"}
	}
	m := newMarker()
	// From here to the marker's prompt U-Boot is busy.
	s.lost = true
	output, status, err := s.result(ctx, command, m)
	if err != nil {
		if ctx.Err() != nil {
			// So that the board is at its prompt when it is looked at next.
			s.abort()
		}
		return output, err
	}
	if status != 0 {
		return output, &ExitError{Command: command, Status: status, Output: output}
	}
	return output, nil
}

// result types a command and reads its output and exit status.
func (s *Shell) result(ctx context.Context, command string, m marker) (output string, status int, err error) {
	fail := func(err error) (string, int, error) {
		var noise *NoiseError
		if errors.As(err, &noise) {
			noise.Command = command
			return output, 0, err
		}
		return output, 0, fmt.Errorf("uboot: %s: %w", command, err)
	}
	from, err := s.typeLine(ctx, command+"; "+m.command())
	if err != nil {
		return fail(err)
	}
	match, err := s.end(ctx, from, m)
	to := match.Start
	if err != nil {
		to = -1
	}
	output = s.clean(s.console.Between(from, to))
	switch {
	case err != nil:
		return fail(err)
	case match.Index == 1:
		return output, 0, &CrashError{Command: command, Line: match.Groups[0]}
	case s.console.Kept() > from:
		return fail(fmt.Errorf("it printed more than the console keeps: the first %d bytes are gone; raise serialconsole.Config.Keep", s.console.Kept()-from))
	}
	// Output without a line's end of its own stands before the marker.
	text := string(s.console.Between(from, match.End))
	output = s.clean([]byte(text[:strings.LastIndex(text, "BS"+string(m))]))
	short, cancel := context.WithTimeout(ctx, s.config.EchoTimeout)
	defer cancel()
	if _, err := s.console.Expect(short, match.End, s.promptPattern()); err == nil {
		// A probe that nothing took is to be echoed behind the prompt.
		s.lost, s.probed = s.probed, false
		s.idle()
	} else if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return fail(err)
	}
	// Without the hush parser $? is printed as it is: there is no status.
	one, two, _ := strings.Cut(match.Groups[1], ":")
	if one == "$?" && two == "$?" {
		return output, 0, nil
	}
	if status, err = strconv.Atoi(one); err != nil || one != two {
		s.noisy = noisyFor
		return fail(&NoiseError{Output: output, Reason: fmt.Sprintf("its exit status was disturbed: %q", match.Groups[0])})
	}
	return output, status, nil
}

// abort stops what runs after a context ended.
func (s *Shell) abort() {
	ctx, cancel := context.WithTimeout(context.Background(), s.config.EchoTimeout)
	defer cancel()
	_ = s.console.Send(ctx, controlC) // the context's error is what counts
}

func (s *Shell) idle() {
	if s.config.Idle != nil {
		s.config.Idle()
	}
}

// end waits for a command's end: its marker, or a crash. What looks like a
// prompt, maybe a spoiled one, is followed by nothing and takes what is typed,
// says that the marker was spoiled.
func (s *Shell) end(ctx context.Context, from int64, m marker) (serialconsole.Match, error) {
	n := len(s.prompt)
	likePrompt := regexp.MustCompile(fmt.Sprintf(`(?:(?:^|\r)[^\r]{%d,%d}|%s)$`, max(1, n-1), n+1, regexp.QuoteMeta(s.prompt)))
	ends := []serialconsole.Pattern{m.pattern(), serialconsole.Line(crash)}
	looked := from
	for {
		patterns := append(slices.Clip(ends), serialconsole.Regexp(likePrompt))
		if s.probed {
			patterns = append(patterns, serialconsole.Literal(probeEcho))
		}
		match, err := s.console.Expect(ctx, looked, patterns...)
		if err == nil && match.Index == 2 {
			match, err = s.pastPrompt(ctx, s.lineOf(from, match.End), likePrompt, ends)
		}
		switch {
		case err != nil || match.Index < 2:
			return match, err
		case match.Index == 3:
			s.noisy = noisyFor
			return match, &NoiseError{Reason: "its end did not arrive as it was printed"}
		}
		looked = match.End
	}
}

// pastPrompt waits for what comes behind a line that may be a prompt: one of the
// ends, the line's end, which is number 2, or a probe's echo, number 3.
func (s *Shell) pastPrompt(ctx context.Context, line int64, likePrompt *regexp.Regexp, ends []serialconsole.Pattern) (serialconsole.Match, error) {
	patterns := append(slices.Clip(ends), serialconsole.Literal("\n"), serialconsole.Literal(probeEcho))
	short, cancel := context.WithTimeout(ctx, s.config.EchoTimeout)
	defer cancel()
	match, err := s.console.Expect(short, line, patterns...)
	if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return match, err
	}
	if likePrompt.Match(s.console.Since(line)) {
		if err := s.probe(ctx); err != nil {
			return match, err
		}
	}
	return s.console.Expect(ctx, line, patterns...)
}

// lineOf returns the offset at which the line begins that an offset is in, or
// from.
func (s *Shell) lineOf(from, offset int64) int64 {
	from = max(from, s.console.Kept())
	return from + int64(bytes.LastIndexByte(s.console.Between(from, offset), '\n')+1)
}

// typeAttempts is how often a line is typed before its echo is given up on.
const typeAttempts = 20

// noisyFor is how many commands long a line is not trusted after it spoiled a
// character.
const noisyFor = 256

// patience is for how many times Config.EchoTimeout the echo of a probe is
// waited for before the line that is typed is given up.
const patience = 8

// typeLine types a line, repairs what the wire spoiled, and sends Enter. It
// returns the offset behind the line's echo.
func (s *Shell) typeLine(ctx context.Context, line string) (int64, error) {
	for attempt := 1; ; attempt++ {
		from := s.console.Mark()
		end, ok, err := s.typePieces(ctx, line)
		if err == nil && ok {
			end, ok, err = s.enter(ctx, line, end)
		}
		if err != nil || ok {
			return end, err
		}
		if attempt == typeAttempts {
			return 0, &NoiseError{Command: line, Reason: fmt.Sprintf("its echo differed %d times, last %q", attempt, tail(s.console.Since(from), 200))}
		}
		// Drop the spoiled line and begin anew on a fresh prompt.
		if err := s.Interrupt(ctx); err != nil {
			return 0, err
		}
	}
}

// typePieces types a line and returns the offset behind its echo. It reports
// false when not all of it was echoed as it was typed.
func (s *Shell) typePieces(ctx context.Context, line string) (end int64, ok bool, err error) {
	end = s.console.Mark()
	for sent := 0; sent < len(line); {
		piece := line[sent:min(len(line), sent+s.config.Piece)]
		if err := s.console.Send(ctx, piece); err != nil {
			return end, false, err
		}
		sent += len(piece)
		if end, ok, err = s.echoed(ctx, end, piece); err != nil || !ok {
			return end, false, err
		}
		if err := s.pause(ctx); err != nil {
			return end, false, err
		}
	}
	return end, true, nil
}

// echoed waits for the echo of a piece, which begins at an offset, and returns
// where it ends. It reports false when it was another.
func (s *Shell) echoed(ctx context.Context, from int64, piece string) (int64, bool, error) {
	end := from + int64(len(piece))
	if err := s.arrived(ctx, end); err != nil && !errors.Is(err, errNoEcho) {
		return end, false, err
	}
	echo := string(s.console.Since(from))
	if echo != piece && strings.HasPrefix(piece, echo) {
		// Its rest is lost, or late: then it comes before a probe's echo.
		if err := s.probe(ctx); err != nil {
			return end, false, err
		}
		short, cancel := context.WithTimeout(ctx, patience*s.config.EchoTimeout)
		defer cancel()
		match, err := s.console.Expect(short, from, serialconsole.Literal(probeEcho))
		switch {
		case err == nil:
			s.probed = false
			echo, end = string(s.console.Between(from, match.Start)), match.End
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return end, false, err
		default:
			// The probe is lost, or even later: nothing comes behind the
			// answer to what Interrupt types.
			if err := s.Interrupt(ctx); err != nil {
				return end, false, err
			}
			if !strings.HasPrefix(string(s.console.Since(from)), piece) {
				s.noisy = noisyFor
			}
			return end, false, nil
		}
	}
	if echo != piece && !strings.Contains(echo, "\n") {
		s.noisy = noisyFor // else something was printed between
	}
	return end, echo == piece, nil
}

// pause waits for Config.Delay.
func (s *Shell) pause(ctx context.Context) error {
	if s.config.Delay == 0 {
		return nil
	}
	timer := time.NewTimer(s.config.Delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errNoEcho = errors.New("no echo")

// arrived waits for an echo, which yields errNoEcho when it does not come.
func (s *Shell) arrived(ctx context.Context, offset int64) error {
	short, cancel := context.WithTimeout(ctx, s.config.EchoTimeout)
	defer cancel()
	err := s.console.WaitFor(short, offset)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return errNoEcho
	}
	return err
}

// enter sends Enter behind a line whose echo ended at an offset, and returns
// the offset of the output. It reports false when something else than Enter
// arrived, which leaves the line to be dropped.
func (s *Shell) enter(ctx context.Context, line string, end int64) (int64, bool, error) {
	lineEnd := serialconsole.Literal("\n")
	for {
		if err := s.console.Send(ctx, "\r"); err != nil {
			return end, false, err
		}
		short, cancel := context.WithTimeout(ctx, s.config.EchoTimeout)
		match, err := s.console.Expect(short, end, lineEnd)
		cancel()
		if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			// A second Enter would run the line a second time, had the first
			// one arrived and its echo been late or lost. Then a line's end,
			// be it that of the marker, comes before a probe's echo.
			if err := s.probe(ctx); err != nil {
				return end, false, err
			}
			match, err = s.console.Expect(ctx, end, lineEnd, serialconsole.Literal(probeEcho))
		}
		if err != nil {
			return end, false, err
		}
		echo := strings.TrimLeft(string(s.console.Between(end, match.Start)), "\r")
		if match.Index == 0 && echo == "" {
			return match.End, true, nil
		}
		s.noisy = noisyFor
		if match.Index == 0 {
			return end, true, nil // its echo was spoiled, and that may be output already
		}
		s.probed = false
		switch typed := match.Start - end; {
		case typed == 0:
			end = match.End // Enter was lost on its way
		case typed == 1 && echo != "":
			return end, false, nil // Enter became another character
		default:
			return end, false, &NoiseError{Command: line, Output: s.clean(s.console.Between(end, match.Start)), Reason: "its Enter was not echoed as one, and may have run it"}
		}
	}
}

// A probe is a space and its deletion, of which nothing is left. U-Boot takes
// what is typed in its order: when the echo of a probe is there, which only its
// line editor prints, so is all that it printed upon what was typed before. What
// is missing then is lost, however slow the board and the line are.
const (
	probeKeys = " \x7f"
	probeEcho = " \b \b"
)

// probe types a probe. While a command runs, it is not echoed until behind the
// next prompt, or never.
func (s *Shell) probe(ctx context.Context) error {
	s.probed = true
	for _, key := range probeKeys {
		if err := s.console.Send(ctx, string(key)); err != nil {
			return err
		}
		if err := s.pause(ctx); err != nil {
			return err
		}
	}
	return nil
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
func (s *Shell) clean(text []byte) string {
	out := strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\r", "")
	if s.stamped {
		out = stampLines.ReplaceAllString(out, "")
	}
	return strings.TrimSuffix(out, "\n")
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
