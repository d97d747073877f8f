package serialconsole

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Pattern is something to wait for.
type Pattern struct {
	name       string
	literal    []byte
	lineStart  bool
	expression *regexp.Regexp
	unfinished bool
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
// arrived and without that end. Of a line longer than 64 KiB each 64 KiB are
// looked at as a line.
func Line(expression *regexp.Regexp) Pattern {
	return Pattern{name: "a line that matches " + expression.String(), expression: expression}
}

// Regexp matches a regular expression against lines, also against one that has
// not ended, such as a prompt: of that the first 4 KiB, as often as more of it
// arrives. The match ends where the expression's does.
func Regexp(expression *regexp.Regexp) Pattern {
	return Pattern{name: "text that matches " + expression.String(), expression: expression, unfinished: true}
}

const (
	longestLine       = 64 << 10 // of which an expression is matched at once, in bytes
	longestUnfinished = 4 << 10
)

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

// waiter looks for patterns in what arrives: until the first match, which goes
// to done, or for good, calling found.
type waiter struct {
	scans []scan
	done  chan Match // closed when nothing can arrive any more
	found func(Match)
}

// Expect waits until one of the patterns matches the text from an offset on.
// Of several the one that begins first wins, then the one that was named
// first. It blocks until then, until ctx ends or nothing can arrive any more;
// the error is an *ExpectError. Text that was dropped before Expect was called
// (see Config.Keep) is not found; what arrives later is seen whole.
func (c *Console) Expect(ctx context.Context, from int64, patterns ...Pattern) (Match, error) {
	w := &waiter{scans: newScans(patterns, from), done: make(chan Match, 1)}
	match, err := c.wait(ctx, w)
	if err == nil {
		return match, nil
	}
	text := c.Since(from)
	return Match{}, &ExpectError{Patterns: patterns, Text: text[max(0, len(text)-stuckAt):], Err: err}
}

func (c *Console) wait(ctx context.Context, w *waiter) (Match, error) {
	c.mu.Lock()
	match, found := c.scan(w.scans)
	err, cut := c.err, c.cut
	if !found && err == nil {
		c.waiters = append(c.waiters, w)
	}
	c.mu.Unlock()
	if found {
		return match, nil
	}
	if err != nil {
		return Match{}, err
	}
	select {
	case match, ok := <-w.done:
		if ok {
			return match, nil
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		return Match{}, c.err
	case <-cut.made:
		c.remove(w)
		return Match{}, cut.cause
	case <-ctx.Done():
		c.remove(w)
		select {
		case match, ok := <-w.done: // it came first
			if ok {
				return match, nil
			}
		default:
		}
		return Match{}, context.Cause(ctx)
	}
}

func (c *Console) remove(w *waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiters = slices.DeleteFunc(c.waiters, func(other *waiter) bool { return other == w })
}

// Watch calls found with every match of the patterns in what arrives from now
// on, whether or not anyone waits, until stop is called or the console ends.
// found is called from the goroutine that reads, before an Expect that a later
// character matches returns: it must not block. The text of the match is there
// for Between.
func (c *Console) Watch(found func(Match), patterns ...Pattern) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := &waiter{scans: newScans(patterns, c.base+int64(len(c.text))), done: make(chan Match), found: found}
	if c.err == nil {
		c.waiters = append(c.waiters, w)
	}
	return func() { c.remove(w) }
}

// scan is a pattern and the offset from which it has not looked yet.
type scan struct {
	Pattern
	next int64  // where the next match may begin
	seen int64  // up to where no line ends
	held *Match // found already, but another pattern's came first
}

func newScans(patterns []Pattern, from int64) []scan {
	scans := make([]scan, len(patterns))
	for i, p := range patterns {
		scans[i] = scan{Pattern: p, next: from}
	}
	return scans
}

// scan looks at the text that is new to each pattern. The caller holds mu.
func (c *Console) scan(scans []scan) (Match, bool) {
	var best *scan
	for i := range scans {
		s := &scans[i]
		if s.held == nil {
			s.next = max(s.next, c.base)
			if match, ok := c.find(s); ok {
				match.Index = i
				s.held = &match
			}
		}
		if s.held != nil && (best == nil || s.held.Start < best.held.Start) {
			best = s
		}
	}
	if best == nil {
		return Match{}, false
	}
	match := *best.held
	best.held = nil
	return match, true
}

func (c *Console) find(s *scan) (Match, bool) {
	if int(s.next-c.base) > len(c.text) {
		return Match{}, false
	}
	if s.expression != nil {
		return c.findExpression(s)
	}
	for {
		at := int(s.next - c.base)
		rest := c.text[at:]
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

func (c *Console) findExpression(s *scan) (Match, bool) {
	for {
		rest := c.text[s.next-c.base:]
		known := int(max(0, s.seen-s.next))
		length := bytes.IndexByte(rest[known:], '\n')
		end := 1 // of the line, in bytes
		if length >= 0 {
			length += known
		} else {
			s.seen = s.next + int64(len(rest))
			length, end = min(len(rest), longestLine), 0
		}
		ended := end > 0 || length == longestLine
		if !ended && (!s.unfinished || known == len(rest) && known > 0) {
			return Match{}, false
		}
		line := rest[:length]
		if ended {
			line = bytes.TrimRight(line, "\r")
		} else {
			line = line[:min(len(line), longestUnfinished)]
		}
		start := s.next
		at := s.expression.FindSubmatchIndex(line)
		if at == nil {
			if !ended {
				return Match{}, false
			}
			s.next += int64(length + end)
			continue
		}
		match := Match{Start: start, End: start + int64(length+end)}
		if s.unfinished {
			match.Start, match.End = start+int64(at[0]), start+int64(at[1])
		}
		for i := 0; i < len(at); i += 2 {
			group := ""
			if at[i] >= 0 {
				group = string(line[at[i]:at[i+1]])
			}
			match.Groups = append(match.Groups, group)
		}
		s.next = max(match.End, start+1)
		return match, true
	}
}

// WaitFor blocks until text up to an offset has arrived, ctx ends, or nothing
// can arrive any more; the error is an *ExpectError.
func (c *Console) WaitFor(ctx context.Context, offset int64) error {
	w := &waiter{scans: []scan{{Pattern: arrived, next: offset}}, done: make(chan Match, 1)}
	if _, err := c.wait(ctx, w); err != nil {
		return &ExpectError{Err: err}
	}
	return nil
}

// arrived matches nothing at all, which is there once the text before it is.
var arrived = Literal("")
