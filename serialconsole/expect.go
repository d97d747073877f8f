package serialconsole

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
)

// Pattern is something to wait for.
type Pattern struct {
	name      string
	literal   []byte
	lineStart bool
	line      *regexp.Regexp
}

// Literal matches text wherever it stands.
func Literal(text string) Pattern {
	return Pattern{name: fmt.Sprintf("%q", text), literal: []byte(text)}
}

// LineStart matches text at the start of a line only. A prompt is waited for
// so: U-Boot's crc32 prints "==> ", which holds its prompt.
func LineStart(text string) Pattern {
	return Pattern{name: fmt.Sprintf("%q at the start of a line", text), literal: []byte(text), lineStart: true}
}

// Line matches a regular expression against whole lines, each once its end has
// arrived and without that end, so that no expression can make a wait cost
// more than the line it looks at.
func Line(expression *regexp.Regexp) Pattern {
	return Pattern{name: "a line that matches " + expression.String(), line: expression}
}

// String describes the pattern.
func (p Pattern) String() string { return p.name }

// Match is where a pattern matched.
type Match struct {
	Index  int      // of the pattern, in the order given to Expect
	Start  int64    // offset of the match's first byte
	End    int64    // offset behind its last
	Groups []string // of a Line: the match and its groups
}

// ExpectError is why an Expect ended without a match.
type ExpectError struct {
	Patterns []Pattern
	Text     []byte // the last of what it looked at
	Err      error  // the context's error, ErrClosed, ErrHangup or what the port said
}

// Error implements error.
func (e *ExpectError) Error() string {
	names := make([]string, len(e.Patterns))
	for i, p := range e.Patterns {
		names[i] = p.name
	}
	if len(e.Text) == 0 {
		return fmt.Sprintf("serialconsole: waiting for %s: %v; nothing arrived", strings.Join(names, " or "), e.Err)
	}
	return fmt.Sprintf("serialconsole: waiting for %s: %v; got stuck at %q", strings.Join(names, " or "), e.Err, e.Text)
}

// Unwrap returns Err.
func (e *ExpectError) Unwrap() error { return e.Err }

// stuckAt is how much of the text an ExpectError shows, in bytes.
const stuckAt = 200

// Expect waits until one of the patterns matches the text from an offset on.
// Of several the one that begins first wins, then the one that was named
// first. It blocks until then, until ctx ends or nothing can arrive any more;
// the error is an *ExpectError. Text that was dropped before Expect could look
// at it (see Config.Keep) is not found.
func (c *Console) Expect(ctx context.Context, from int64, patterns ...Pattern) (Match, error) {
	scans := make([]scan, len(patterns))
	for i, p := range patterns {
		scans[i] = scan{Pattern: p, next: from}
	}
	for {
		c.mu.Lock()
		match, found := c.scan(scans)
		wake, err := c.wake, c.err
		c.mu.Unlock()
		if found {
			return match, nil
		}
		if err == nil {
			select {
			case <-wake:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		text := c.Since(from)
		return Match{}, &ExpectError{Patterns: patterns, Text: text[max(0, len(text)-stuckAt):], Err: err}
	}
}

// scan is a pattern and the offset from which it has not looked yet.
type scan struct {
	Pattern
	next int64
}

// scan looks at the text that is new to each pattern. The caller holds mu.
func (c *Console) scan(scans []scan) (Match, bool) {
	best, found := Match{}, false
	for i := range scans {
		s := &scans[i]
		s.next = max(s.next, c.base)
		match, ok := c.find(s)
		if ok && (!found || match.Start < best.Start) {
			match.Index = i
			best, found = match, true
		}
	}
	return best, found
}

func (c *Console) find(s *scan) (Match, bool) {
	for {
		at := int(s.next - c.base)
		if at > len(c.text) {
			return Match{}, false
		}
		rest := c.text[at:]
		if s.line != nil {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				return Match{}, false
			}
			start := s.next
			s.next += int64(end) + 1
			line := bytes.TrimRight(rest[:end], "\r")
			if groups := s.line.FindSubmatch(line); groups != nil {
				match := Match{Start: start, End: s.next}
				for _, g := range groups {
					match.Groups = append(match.Groups, string(g))
				}
				return match, true
			}
			continue
		}
		i := bytes.Index(rest, s.literal)
		if i < 0 {
			// The literal's beginning may have arrived already.
			s.next += int64(max(0, len(rest)-len(s.literal)+1))
			return Match{}, false
		}
		start := s.next + int64(i)
		s.next = start + 1
		if s.lineStart && at+i > 0 && c.text[at+i-1] != '\n' && c.text[at+i-1] != '\r' {
			continue
		}
		return Match{Start: start, End: start + int64(len(s.literal))}, true
	}
}

// WaitFor blocks until text up to an offset has arrived, ctx ends, or nothing
// can arrive any more; the error is an *ExpectError.
func (c *Console) WaitFor(ctx context.Context, offset int64) error {
	for {
		c.mu.Lock()
		arrived := c.base + int64(len(c.text))
		wake, err := c.wake, c.err
		c.mu.Unlock()
		if arrived >= offset {
			return nil
		}
		if err == nil {
			select {
			case <-wake:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		return &ExpectError{Err: err}
	}
}
