package serialconsole

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// EventKind says what happened on a console.
type EventKind byte

// The kinds of events.
const (
	Received EventKind = 'o' // bytes that the board sent
	Sent     EventKind = 'i' // bytes that were sent to the board
	Note     EventKind = 'm' // a remark of this side: the power was cut, the line hung up
)

// Event is one thing that happened on a console. What the board sends arrives
// in events as the port gave it: one may hold half a line, or half a character.
type Event struct {
	Time   time.Time
	Kind   EventKind
	Offset int64 // bytes of this kind before it
	Data   []byte
}

// Transcript is all that a console received and sent, in a file. Of a process
// that was killed it has everything up to then. Its methods may be called
// concurrently.
type Transcript struct {
	mu    sync.Mutex // guards all below
	file  *os.File
	last  time.Time
	event []byte
	err   error // of the first write that failed
}

// magic begins a transcript's file, before the time of its start in
// nanoseconds since 1970 (8 bytes, big-endian). An event is its kind (1 byte),
// the nanoseconds since the event before it, the number of its bytes (both as
// in encoding/binary's Uvarint), and its bytes.
const magic = "boardspec console transcript 1\n"

// CreateTranscript begins a transcript in a new file; one that exists is
// replaced. The caller closes it.
func CreateTranscript(path string) (*Transcript, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("serialconsole: create a transcript: %w", err)
	}
	t := &Transcript{file: file, last: time.Now()}
	if _, err := file.Write(binary.BigEndian.AppendUint64([]byte(magic), uint64(t.last.UnixNano()))); err != nil {
		file.Close()
		return nil, fmt.Errorf("serialconsole: create a transcript: %w", err)
	}
	return t, nil
}

// OpenTranscript opens the file of a transcript for reading. The caller closes
// it.
func OpenTranscript(path string) (*Transcript, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("serialconsole: open a transcript: %w", err)
	}
	return &Transcript{file: file, err: errors.New("it is open for reading only")}, nil
}

// add appends an event. A disk that is full must not stop the console: the
// error is Close's to return.
func (t *Transcript) add(kind EventKind, data []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	now := time.Now()
	t.event = append(t.event[:0], byte(kind))
	t.event = binary.AppendUvarint(t.event, uint64(max(0, now.Sub(t.last))))
	t.event = binary.AppendUvarint(t.event, uint64(len(data)))
	t.event = append(t.event, data...)
	t.last = now
	_, t.err = t.file.Write(t.event)
}

// Note adds a remark.
func (t *Transcript) Note(text string) { t.add(Note, []byte(text)) }

// Close closes the file. It returns the error of the first write that failed.
func (t *Transcript) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.err
	if t.event == nil {
		err = nil // it was not written to
	}
	if err := errors.Join(err, t.file.Close()); err != nil {
		return fmt.Errorf("serialconsole: transcript %s: %w", t.file.Name(), err)
	}
	t.err = os.ErrClosed
	return nil
}

// Events reads the events from the first on, also while more are added. Data
// is valid until the next one. A file that is none, or whose end was cut, ends
// the sequence with an error.
func (t *Transcript) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		fail := func(err error) {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			yield(Event{}, fmt.Errorf("serialconsole: transcript %s: %w", t.file.Name(), err))
		}
		in := bufio.NewReaderSize(io.NewSectionReader(t.file, 0, 1<<62), 64<<10)
		header := make([]byte, len(magic)+8)
		if _, err := io.ReadFull(in, header); err != nil || string(header[:len(magic)]) != magic {
			fail(errors.Join(errors.New("this is no transcript"), err))
			return
		}
		event := Event{Time: time.Unix(0, int64(binary.BigEndian.Uint64(header[len(magic):])))}
		offsets := make(map[EventKind]int64)
		for {
			kind, err := in.ReadByte()
			if err == io.EOF {
				return
			}
			var passed, length uint64
			if err == nil {
				passed, err = binary.ReadUvarint(in)
			}
			if err == nil {
				length, err = binary.ReadUvarint(in)
			}
			if err == nil && length > 1<<30 {
				err = fmt.Errorf("an event of %d bytes", length)
			}
			if err == nil {
				event.Data = append(event.Data[:0], make([]byte, length)...)
				_, err = io.ReadFull(in, event.Data)
			}
			if err != nil {
				fail(err)
				return
			}
			event.Kind, event.Time = EventKind(kind), event.Time.Add(time.Duration(passed))
			event.Offset = offsets[event.Kind]
			offsets[event.Kind] += int64(length)
			if !yield(event, nil) {
				return
			}
		}
	}
}

// WriteText writes what the board sent, as it came: what a terminal got.
func (t *Transcript) WriteText(w io.Writer) error {
	for event, err := range t.Events() {
		if err != nil {
			return err
		}
		if event.Kind != Received {
			continue
		}
		if _, err := w.Write(event.Data); err != nil {
			return err
		}
	}
	return nil
}

// WriteTimed writes a line for each line of the console, with the time when it
// began (local, to the microsecond), "<" for what the board sent, ">" for what
// was sent to it and "#" for a remark. Control characters are spelled as in Go.
func (t *Transcript) WriteTimed(w io.Writer) error {
	var out bytes.Buffer
	mark := map[EventKind]byte{Received: '<', Sent: '>', Note: '#'}
	var open EventKind // of the line that has not ended; 0 for none
	var half halves
	for event, err := range t.Events() {
		if err != nil {
			return err
		}
		for line := range strings.Lines(half.join(event)) {
			if open != event.Kind {
				if open != 0 {
					out.WriteByte('\n')
				}
				fmt.Fprintf(&out, "%s %c ", event.Time.Local().Format("15:04:05.000000"), mark[event.Kind])
				open = event.Kind
			}
			text, ended := strings.CutSuffix(line, "\n")
			if ended {
				text = strings.TrimSuffix(text, "\r")
			}
			writeVisible(&out, text)
			if ended || event.Kind == Note {
				out.WriteByte('\n')
				open = 0
			}
		}
		if _, err := out.WriteTo(w); err != nil {
			return err
		}
	}
	if open != 0 {
		out.WriteByte('\n')
	}
	_, err := out.WriteTo(w)
	return err
}

func writeVisible(out *bytes.Buffer, text string) {
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(out, `\x%02x`, text[0])
		case r < ' ' && r != '\t' || r == 0x7f:
			fmt.Fprintf(out, `\x%02x`, r)
		default:
			out.WriteString(text[:size])
		}
		text = text[size:]
	}
}

// WriteAsciicast writes the transcript in the format asciicast v2, which
// asciinema and other players replay. Remarks become markers.
func (t *Transcript) WriteAsciicast(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	var start time.Time
	var half halves
	for event, err := range t.Events() {
		if err != nil {
			return err
		}
		if start.IsZero() {
			start = event.Time
			if err := encoder.Encode(map[string]any{"version": 2, "width": 80, "height": 25, "timestamp": start.Unix()}); err != nil {
				return err
			}
		}
		text := strings.ToValidUTF8(half.join(event), "\uFFFD")
		if text == "" {
			continue
		}
		if err := encoder.Encode([]any{event.Time.Sub(start).Seconds(), string(event.Kind), text}); err != nil {
			return err
		}
	}
	return nil
}

// halves are the beginnings of characters whose ends have not come, by kind.
type halves map[EventKind]string

// join returns an event's text behind the beginning of a character that came
// before, and keeps back the one at its own end.
func (h *halves) join(event Event) string {
	if *h == nil {
		*h = make(halves)
	}
	text := (*h)[event.Kind] + string(event.Data)
	whole := len(text)
	for i := len(text) - 1; i >= max(0, len(text)-utf8.UTFMax+1); i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRuneInString(text[i:]) {
				whole = i
			}
			break
		}
	}
	(*h)[event.Kind] = text[whole:]
	return text[:whole]
}
