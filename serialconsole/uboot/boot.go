package uboot

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/boardspec/boardspec/serialconsole"
)

// Reset runs U-Boot's reset command, waits until the board starts anew, and
// brings it to the prompt again.
func (s *Shell) Reset(ctx context.Context) error {
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return err
		}
	}
	s.lost = true
	from, err := s.typeLine(ctx, "reset")
	if err != nil {
		return fmt.Errorf("uboot: reset: %w", err)
	}
	if _, err := s.console.Expect(ctx, from, serialconsole.Line(banner)); err != nil {
		return fmt.Errorf("uboot: reset: %w", err)
	}
	return s.Interrupt(ctx)
}

var banner = regexp.MustCompile(`^(U-Boot (SPL )?[0-9]|DRAM: )`)

// BootError is a command that was to start a system and came back.
type BootError struct {
	Command string
	Output  string
}

// Error implements error.
func (e *BootError) Error() string {
	return fmt.Sprintf("uboot: %s: nothing was started: %s", e.Command, reason(e.Output))
}

// reason is what says why in a boot command's output: its complaints, of which
// the last is often a consequence only, or else its last line.
func reason(output string) string {
	var complaints []string
	for line := range strings.SplitSeq(output, "\n") {
		if complaint.MatchString(line) {
			complaints = append(complaints, strings.TrimSpace(line))
		}
	}
	if len(complaints) == 0 {
		return lastLine(output)
	}
	return strings.Join(complaints[max(0, len(complaints)-5):], "; ")
}

var complaint = regexp.MustCompile(`(?i)\bbad\b|\berror\b|\bfail|\binvalid\b|\bwrong\b|\bcan't\b|\bcannot\b|\bcould not\b|\bnot (?:found|supported)\b`)

// Boot runs a command that starts another system: booti, bootm, bootefi, go, pxe
// boot. It returns when the system's first words are there, which started
// matches: "Starting kernel" if nil. A command that comes back to the prompt
// yields a *BootError with what it printed. The console is the new system's
// then; Interrupt, or any other method, looks for U-Boot again.
func (s *Shell) Boot(ctx context.Context, command string, started *regexp.Regexp) error {
	if started == nil {
		started = startingKernel
	}
	if err := s.check(command); err != nil {
		return err
	}
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return err
		}
	}
	s.lost = true
	m := newMarker()
	from, err := s.typeLine(ctx, command+"; "+m.command())
	if err != nil {
		return fmt.Errorf("uboot: %s: %w", command, err)
	}
	match, err := s.console.Expect(ctx, from, serialconsole.Regexp(started), m.pattern(), serialconsole.Line(crash))
	switch {
	case err != nil:
		return fmt.Errorf("uboot: %s: %w", command, err)
	case match.Index == 1:
		return &BootError{Command: command, Output: s.clean(s.console.Between(from, match.Start))}
	case match.Index == 2:
		return &CrashError{Command: command, Line: match.Groups[0]}
	}
	return nil
}

var startingKernel = regexp.MustCompile(`^Starting kernel`)

// Source runs the script at addr, one that mkimage made or plain text where
// U-Boot takes it.
func (s *Shell) Source(ctx context.Context, addr uint64) (string, error) {
	return s.Run(ctx, fmt.Sprintf("source %x", addr))
}

// PowerOff runs U-Boot's poweroff. It returns when U-Boot says that it switches
// off, or the console ends.
func (s *Shell) PowerOff(ctx context.Context) error {
	if err := s.need(ctx, "poweroff", "CONFIG_CMD_POWEROFF"); err != nil {
		return err
	}
	if s.lost {
		if err := s.Interrupt(ctx); err != nil {
			return err
		}
	}
	s.lost = true
	from, err := s.typeLine(ctx, "poweroff")
	if err == nil {
		_, err = s.console.Expect(ctx, from, serialconsole.Line(poweringOff))
	}
	var ended *serialconsole.ExpectError
	if err != nil && ctx.Err() == nil && errors.As(err, &ended) && !strings.Contains(string(ended.Text), s.prompt) {
		return nil // the line went with the power
	}
	if err != nil {
		return fmt.Errorf("uboot: poweroff: %w", err)
	}
	return nil
}

var poweringOff = regexp.MustCompile(`^poweroff \.\.\.|^Powering off`)
