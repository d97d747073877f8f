package linux

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
	"github.com/boardspec/boardspec/serialconsole/uboot"
)

// Config says how to log in.
type Config struct {
	User     string         // typed at a login prompt; root if empty
	Password string         // typed at a password prompt
	Prompt   *regexp.Regexp // of the shell, at the end of what was printed; "# " or "$ " at a line's end if nil
}

// Shell is a shell of a Linux at the other end of a console.
type Shell struct {
	console *serialconsole.Console
	config  Config
	ready   bool // the shell waits for a command
}

// New returns a Shell on a console, which stays the caller's. It neither sends
// nor waits.
func New(console *serialconsole.Console, config Config) *Shell {
	if config.User == "" {
		config.User = "root"
	}
	if config.Prompt == nil {
		config.Prompt = regexp.MustCompile(`[#$] $`)
	}
	return &Shell{console: console, config: config}
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Command string
	Status  int // $?
	Output  string
}

// Error implements error.
func (e *ExitError) Error() string {
	lines := strings.Split(strings.TrimSpace(e.Output), "\n")
	return fmt.Sprintf("linux: %s: exit status %d: %s", e.Command, e.Status, lines[len(lines)-1])
}

// CrashError is a kernel that panicked or oopsed.
type CrashError struct {
	Doing string // a command, or what was waited for
	Line  string // the line that shows it
}

// Error implements error.
func (e *CrashError) Error() string {
	return fmt.Sprintf("linux: %s: the kernel crashed: %s", e.Doing, e.Line)
}

// crash matches what a kernel prints when it is not to be trusted any more:
// kernel/panic.c, arch/*/kernel/traps.c, arch/*/mm/fault.c, lib/bug.c, mm/kasan.
var crash = regexp.MustCompile(`Kernel panic - not syncing|Internal error: |Unable to handle kernel |BUG: |Oops: |Oops - |---\[ end Kernel panic|VFS: Unable to mount root fs`)

// nudge is how long the console must be silent before Enter is pressed: a
// kernel's message may have hidden the prompt.
const nudge = 2 * time.Second

var (
	loginPrompt    = regexp.MustCompile(`login: $`)
	passwordPrompt = regexp.MustCompile(`(?i)password: ?$`)
	loginFailed    = regexp.MustCompile(`(?i)^login incorrect`)
)

// Login brings a Linux to its shell, from the kernel's first words, from its
// login prompt, or from a shell.
func (s *Shell) Login(ctx context.Context) error {
	from := s.console.Mark()
	// What is there already counts, as a prompt that was printed before.
	from = max(s.console.Kept(), from-int64(len(lastLine(s.console.Tail(256)))))
	for {
		before := s.console.Mark()
		short, cancel := context.WithTimeout(ctx, nudge)
		match, err := s.console.Expect(short, from,
			serialconsole.Line(crash), serialconsole.Regexp(loginPrompt), serialconsole.Regexp(passwordPrompt),
			serialconsole.Line(loginFailed), serialconsole.Regexp(s.config.Prompt))
		cancel()
		if err != nil {
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("linux: reach a shell: %w", err)
			}
			if s.console.Mark() == before {
				if err := s.press(ctx, "\n"); err != nil {
					return fmt.Errorf("linux: reach a shell: %w", err)
				}
			}
			continue
		}
		from = match.End
		switch match.Index {
		case 0:
			return &CrashError{Doing: "reach a shell", Line: match.Groups[0]}
		case 1:
			err = s.press(ctx, s.config.User+"\n")
		case 2:
			err = s.press(ctx, s.config.Password+"\n")
		case 3:
			return fmt.Errorf("linux: %s may not log in with the password of Config", s.config.User)
		case 4:
			ok, tried := s.try(ctx)
			if tried != nil {
				return tried
			}
			if ok {
				s.ready = true
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("linux: log in: %w", err)
		}
	}
}

func (s *Shell) press(ctx context.Context, text string) error {
	return s.console.Send(ctx, text)
}

// try finds out whether a shell is there: what looks like a prompt may be a
// kernel's message.
func (s *Shell) try(ctx context.Context) (bool, error) {
	short, cancel := context.WithTimeout(ctx, nudge)
	defer cancel()
	_, status, err := s.run(short, "true")
	var crashed *CrashError
	if errors.As(err, &crashed) || ctx.Err() != nil {
		return false, err
	}
	return err == nil && status == 0, nil
}

// longest is how much a terminal takes in one line, less what is put around a
// command: N_TTY_BUF_SIZE is 4096.
const longest = 4000

// Run runs one command line and returns what it printed, with lines ended by
// "\n" and without the last line's end. A command whose exit status is not 0
// yields its output and an *ExitError. Messages of the kernel that came
// meanwhile are in the output, as they are on the console.
func (s *Shell) Run(ctx context.Context, command string) (string, error) {
	if i := strings.IndexFunc(command, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return "", fmt.Errorf("linux: %q holds the control character %q", command, command[i])
	}
	if len(command) > longest {
		return "", fmt.Errorf("linux: a command of %d characters: %d is the limit, past which a terminal drops them: %.40q", len(command), longest, command)
	}
	if !s.ready {
		if err := s.press(ctx, "\x03"); err != nil {
			return "", fmt.Errorf("linux: %s: %w", command, err)
		}
		if err := s.Login(ctx); err != nil {
			return "", err
		}
	}
	s.ready = false
	output, status, err := s.run(ctx, command)
	if err != nil {
		if ctx.Err() != nil {
			stop, cancel := context.WithTimeout(context.Background(), nudge)
			defer cancel()
			_ = s.press(stop, "\x03") // the context's error is what counts
		}
		return output, err
	}
	s.ready = true
	if status != 0 {
		return output, &ExitError{Command: command, Status: status, Output: output}
	}
	return output, nil
}

func (s *Shell) run(ctx context.Context, command string) (output string, status int, err error) {
	token := rand.Text()[:8]
	from := s.console.Mark()
	fail := func(err error) (string, int, error) {
		return output, 0, fmt.Errorf("linux: %s: %w", command, err)
	}
	// eval has a comment, or a background job, end where the command does.
	quoted := "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"
	if err := s.press(ctx, "echo; echo BS''"+token+"; eval "+quoted+"; echo BE''"+token+":$?\n"); err != nil {
		return fail(err)
	}
	wait := func(from int64, expression string) (serialconsole.Match, error) {
		match, err := s.console.Expect(ctx, from, serialconsole.Line(regexp.MustCompile(expression)), serialconsole.Line(crash))
		if err == nil && match.Index == 1 {
			return match, &CrashError{Doing: command, Line: match.Groups[0]}
		}
		return match, err
	}
	begin, err := wait(from, `BS`+token+`$`)
	if err != nil {
		var crashed *CrashError
		if errors.As(err, &crashed) {
			return "", 0, err
		}
		return fail(err)
	}
	end, err := wait(begin.End, `BE`+token+`:([0-9]+)$`)
	to := end.Start
	if err != nil {
		to = -1
	}
	output = s.clean(s.console.Between(begin.End, to))
	var crashed *CrashError
	switch {
	case errors.As(err, &crashed):
		return output, 0, err
	case err != nil:
		return fail(err)
	case s.console.Kept() > begin.End:
		return fail(errors.New("it printed more than the console keeps: raise serialconsole.Config.Keep"))
	}
	// Output without a line's end of its own stands before the marker.
	text := string(s.console.Between(begin.End, end.End))
	text = text[:strings.LastIndex(text, "BE"+token)]
	if status, err = strconv.Atoi(end.Groups[1]); err != nil {
		return fail(err)
	}
	return s.clean([]byte(text)), status, nil
}

// Reboot restarts the board from Linux and brings it to U-Boot's prompt.
func (s *Shell) Reboot(ctx context.Context, boot *uboot.Shell) error {
	if !s.ready {
		if err := s.Login(ctx); err != nil {
			return err
		}
	}
	s.ready = false
	from := s.console.Mark()
	if err := s.press(ctx, "reboot -f || reboot\n"); err != nil {
		return fmt.Errorf("linux: reboot: %w", err)
	}
	// Ctrl-C before U-Boot is there would stop the reboot.
	if _, err := s.console.Expect(ctx, from, serialconsole.Line(ubootBanner)); err != nil {
		return fmt.Errorf("linux: reboot: %w", err)
	}
	return boot.Interrupt(ctx)
}

var ubootBanner = regexp.MustCompile(`^(U-Boot (SPL )?[0-9]|DRAM: )`)

// clean makes Go text of console text.
func (s *Shell) clean(text []byte) string {
	return strings.TrimSuffix(strings.ReplaceAll(strings.ToValidUTF8(string(text), "\uFFFD"), "\r", ""), "\n")
}

func lastLine(text []byte) []byte {
	return text[bytes.LastIndexByte(text, '\n')+1:]
}
