package uboot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
)

// controlC stops what runs, and is harmless at the prompt. An empty line is
// not: it repeats the last command.
const controlC = "\x03"

const (
	// nudge is how long Interrupt waits for the prompt before it sends Ctrl-C
	// (again). U-Boot says nothing when it can be stopped where bootdelay is 0
	// or the console is silent.
	nudge = 100 * time.Millisecond
	// quiet is how long a board must be silent before Ctrl-C is sent to one
	// that wants a password.
	quiet = time.Second
	// guess is after how many nudges in vain a line that does not end is taken
	// for a prompt, to be tried.
	guess = 5
	// likePrompt is more than what Ctrl-C may have a prompt print, in bytes.
	likePrompt = 256
	// linuxEchoes is how many echoes of Ctrl-C are taken for a Linux.
	linuxEchoes = 3
	// syncTime is how long the prompt's own answer to an echo may take before
	// the prompt is taken for a likeness of it.
	syncTime = time.Second
)

// unfinishedLine matches text that may be a prompt.
var unfinishedLine = regexp.MustCompile(`[^\r\n]+$`)

// Interrupt brings U-Boot to its prompt: from power on, from its autoboot
// countdown, from a prompt, also behind a half-typed line or one that is open
// (a quote, an if), from a command that Ctrl-C stops, and with Config.Reset
// from Linux. It learns the prompt where Config does not give it. It blocks
// until then or until ctx ends.
func (s *Shell) Interrupt(ctx context.Context) error {
	from := s.console.Mark()
	fail := func(err error) error {
		return fmt.Errorf("uboot: reach the prompt %q: %w", s.prompt, err)
	}
	send := func(text string) error {
		return s.console.Send(ctx, text)
	}
	wait := quiet
	if s.config.Stop == "" {
		wait = nudge
		if err := send(controlC); err != nil {
			return fail(err)
		}
	} else {
		from = s.lastLine() // it may have been announced already
	}
	reset, echoes, inVain := false, 0, 0
	for {
		// Each wait is short; a board that prints all the time is sent Ctrl-C
		// as often as one that is silent.
		before := s.console.Mark()
		short, cancel := context.WithTimeout(ctx, wait)
		match, err := s.console.Expect(short, from,
			s.promptPattern(),
			serialconsole.Literal("<INTERRUPT>"),
			serialconsole.Regexp(s.config.Announcement),
			serialconsole.Literal("^C"))
		cancel()
		try := false
		switch {
		case err == nil && match.Index <= 1:
			from, try = match.End, true
		case err == nil && match.Index == 2:
			from = match.End
			stop := s.config.Stop
			if stop == "" {
				stop = controlC
			}
			if err := send(stop); err != nil {
				return fail(err)
			}
			continue
		case err == nil:
			from = match.End
			if echoes++; echoes < linuxEchoes {
				break
			}
			if s.config.Reset == nil || reset {
				return fail(errors.New("the board echoes Ctrl-C as ^C, as Linux does, not U-Boot: reset it"))
			}
			reset, echoes = true, 0
			if err := s.config.Reset(ctx); err != nil {
				return fail(fmt.Errorf("reset the board out of Linux: %w", err))
			}
		case ctx.Err() != nil:
			return fail(s.noPrompt(ctx, err))
		case !errors.Is(err, context.DeadlineExceeded):
			return fail(err)
		case s.config.Stop != "" && s.console.Mark() != before:
			continue // it boots: type nothing before the announcement
		default:
			inVain++
			try = inVain%guess == 0 && s.console.Mark()-before < likePrompt && unfinishedLine.Match(s.console.Tail(80))
		}
		if try {
			synced, err := s.sync(ctx)
			if err != nil {
				return fail(err)
			}
			if synced {
				return nil
			}
			from = s.console.Mark()
		}
		if err := send(controlC); err != nil {
			return fail(err)
		}
	}
}

// lastLine returns the offset of the last line that is not empty, ended or not.
func (s *Shell) lastLine() int64 {
	const longest = 512
	end := s.console.Mark()
	start := max(s.console.Kept(), end-longest)
	text := bytes.TrimRight(s.console.Between(start, end), "\r\n")
	return start + int64(bytes.LastIndexByte(text, '\n')+1)
}

// noPrompt adds to the error what a person should look at.
func (s *Shell) noPrompt(ctx context.Context, err error) error {
	if len(s.console.Tail(1)) == 0 {
		return fmt.Errorf("%w: the board printed nothing at all: is it powered, is this its console, does the baud rate fit, is its firmware one for this machine?", context.Cause(ctx))
	}
	return err
}

// sync makes sure that a prompt is U-Boot's and that nothing else is under
// way: a marker that is echoed back and printed can only come from here. The
// line on which it is echoed shows the prompt, and the line on which it is
// printed what is put before each.
func (s *Shell) sync(ctx context.Context) (bool, error) {
	short, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	m := newMarker()
	from := s.console.Mark()
	if err := s.console.Send(ctx, m.command()+"\r"); err != nil {
		return false, err
	}
	ok, err := s.readSync(short, m, from)
	if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return false, err
	}
	if ok {
		s.lost, s.probed = false, false
		s.crashed.Store(nil) // that is how it got here
		s.idle()
	}
	return ok, nil
}

func (s *Shell) readSync(ctx context.Context, m marker, from int64) (bool, error) {
	match, err := s.console.Expect(ctx, from, m.pattern())
	if err != nil {
		return false, err
	}
	before, _, _ := strings.Cut(match.Groups[0], "BS"+string(m))
	s.stamped = before != "" && stampOnly.MatchString(before)
	if s.config.Prompt == "" {
		s.learnPrompt(m, from, match.Start)
	}
	_, err = s.console.Expect(ctx, match.End, s.promptPattern())
	return err == nil, err
}

// learnPrompt takes for the prompt what stands before a marker's echo.
func (s *Shell) learnPrompt(m marker, from, to int64) {
	const longest = 4096
	text := string(s.console.Between(from-longest, to))
	at := strings.LastIndex(text, m.command())
	if at < 0 {
		return
	}
	line := text[strings.LastIndexAny(text[:at], "\r\n")+1 : at]
	if s.stamped {
		line = stampLines.ReplaceAllString(line, "")
	}
	// Some print it anew behind itself upon Ctrl-C.
	for n := 1; n <= len(line)/2; n++ {
		if len(line)%n == 0 && strings.Repeat(line[:n], len(line)/n) == line {
			line = line[:n]
			break
		}
	}
	if line != "" && !strings.HasSuffix(line, s.prompt) {
		s.prompt = line
	}
}
