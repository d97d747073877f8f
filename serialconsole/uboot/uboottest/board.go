// Package uboottest plays U-Boot from a recording, for testing what drives one
// without one: the text of a console, as serialconsole.Transcript.WriteText
// writes it, of a session that package uboot held with a real board.
//
//	board, err := uboottest.Open("testdata/beaglebone.console")
//	console := serialconsole.New(board, serialconsole.Config{})
//	shell := uboot.New(console, uboot.Config{})
//	output, err := shell.Run(ctx, "mmc info")   // as it was recorded
//
// The board echoes what is typed as U-Boot's line editor does
// (common/cli_readline.c), answers each command that was recorded with its
// output and exit status, keeps environment variables, and knows echo, true,
// false, setenv and printenv. Of a command that was recorded several times the
// answers come in their order, the last one again and again.
package uboottest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
)

// Answer is what a command printed, and its exit status.
type Answer struct {
	Output string // with "\r\n" at the ends of lines
	Status int
}

// Board is a scripted U-Boot: the other end of its console. Set the fields
// before the first Read or Write, which may be called concurrently.
type Board struct {
	Boot    string              // what is printed from the start to the first prompt
	Prompt  string              // "=> " if empty
	Answers map[string][]Answer // by command line
	MaxLine int                 // CONFIG_SYS_CBSIZE: what is typed beyond is dropped with a bell; 512 if zero
	Each    string              // put before every line that is printed, as loggers put a time
	OnEnter func(line string)   // is called with each line that is entered; nil for none

	// Autoboot announces that the board is going to boot; only what is typed
	// as Stop, with nothing before it, ends that. Anything else boots: the
	// board prints Starting and says no more. Empty for a board that goes to
	// its prompt.
	Autoboot string
	Stop     string
	Starting string

	// QuietInterrupt is how the parser of HUSH_MODERN_PARSER takes Ctrl-C: it
	// prints its prompt anew, behind the one that is there.
	QuietInterrupt bool

	waiting  []byte // typed while autoboot waits
	counting bool
	gone     bool // it booted
	lastLine string
	env      map[string]string
	line     []byte
	status   int

	mu      sync.Mutex // guards what is above in Write, and all below
	booted  bool
	closed  bool
	out     bytes.Buffer
	bol     bool // at the beginning of a line
	arrived chan struct{}
}

var _ io.ReadWriteCloser = (*Board)(nil)

// Open reads a recording.
func Open(path string) (*Board, error) {
	recording, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("uboottest: %w", err)
	}
	board, err := Parse(recording)
	if err != nil {
		return nil, fmt.Errorf("uboottest: %s: %w", path, err)
	}
	return board, nil
}

// The marker that package uboot types behind each command, and what becomes of
// it: its end of the output and the exit status.
var (
	typed   = regexp.MustCompile(`^(.*)echo BS''([A-Z2-7]{6}):\$\?(?::\$\?)?$`)
	printed = regexp.MustCompile(`BS([A-Z2-7]{6}):([0-9]+|\$\?)(?::(?:[0-9]+|\$\?))?$`)
)

// Parse makes a board of a recording.
func Parse(recording []byte) (*Board, error) {
	b := &Board{Answers: make(map[string][]Answer)}
	var command, marker string
	var output strings.Builder
	for line := range strings.Lines(string(recording)) {
		text := strings.TrimRight(line, "\r\n")
		if found := typed.FindStringSubmatch(text); found != nil && marker == "" {
			if b.Prompt == "" {
				// The first one follows nothing but the prompt.
				b.Prompt = found[1]
				b.Boot = strings.TrimSuffix(output.String(), b.Prompt)
			}
			at := strings.LastIndex(found[1], b.Prompt)
			if at < 0 {
				return nil, fmt.Errorf("a command is typed at %q, the prompt is %q", found[1], b.Prompt)
			}
			command, marker = strings.TrimSuffix(found[1][at+len(b.Prompt):], "; "), found[2]
			output.Reset()
			continue
		}
		if found := printed.FindStringSubmatch(text); found != nil && found[1] == marker {
			output.WriteString(strings.TrimSuffix(text, found[0]))
			answer := Answer{Output: output.String()}
			_, _ = fmt.Sscan(found[2], &answer.Status) // "$?" is no status: 0
			if command != "" {
				b.Answers[command] = append(b.Answers[command], answer)
			}
			command, marker = "", ""
			output.Reset()
			continue
		}
		output.WriteString(line)
	}
	if b.Prompt == "" {
		return nil, fmt.Errorf("no command of package uboot is in it")
	}
	return b, nil
}

// start prints what comes before the first prompt. b.mu is held.
func (b *Board) start() {
	if b.booted {
		return
	}
	b.booted = true
	b.arrived = make(chan struct{})
	b.env = make(map[string]string)
	b.bol = true
	if b.Prompt == "" {
		b.Prompt = "=> "
	}
	if b.MaxLine == 0 {
		b.MaxLine = 512
	}
	if b.counting = b.Autoboot != ""; b.counting {
		b.print(b.Boot + b.Autoboot)
		return
	}
	b.print(b.Boot + b.Prompt)
}

// stop takes a character while autoboot waits.
func (b *Board) stop(c byte) {
	b.waiting = append(b.waiting, c)
	switch {
	case string(b.waiting) == b.Stop:
		b.counting = false
		b.print("\r\n" + b.Prompt)
	case !strings.HasPrefix(b.Stop, string(b.waiting)):
		b.counting, b.gone = false, true
		b.print("\r\n" + b.Starting)
	}
}

func (b *Board) print(text string) {
	for piece := range strings.SplitAfterSeq(text, "\n") {
		if piece == "" {
			continue
		}
		if b.bol {
			b.out.WriteString(b.Each)
		}
		b.out.WriteString(piece)
		b.bol = strings.HasSuffix(piece, "\n")
	}
	close(b.arrived)
	b.arrived = make(chan struct{})
}

// Print prints text from outside of any command, as a driver does.
func (b *Board) Print(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start()
	b.print(text)
}

// Read implements io.Reader: it blocks until the board prints, or Close.
func (b *Board) Read(p []byte) (int, error) {
	for {
		b.mu.Lock()
		b.start()
		if b.closed {
			b.mu.Unlock()
			return 0, net.ErrClosed
		}
		if b.out.Len() > 0 {
			defer b.mu.Unlock()
			return b.out.Read(p)
		}
		arrived := b.arrived
		b.mu.Unlock()
		<-arrived
	}
}

// Write implements io.Writer: it types at the board.
func (b *Board) Write(p []byte) (int, error) {
	for _, c := range p {
		b.mu.Lock()
		b.start()
		if b.closed {
			b.mu.Unlock()
			return 0, net.ErrClosed
		}
		entered, isLine := b.key(c)
		onEnter := b.OnEnter
		b.mu.Unlock()
		if isLine {
			if onEnter != nil {
				onEnter(entered)
			}
			b.mu.Lock()
			b.enter(entered)
			b.mu.Unlock()
		}
	}
	return len(p), nil
}

// Close implements io.Closer.
func (b *Board) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.start()
		b.closed = true
		close(b.arrived)
	}
	return nil
}

// key takes one character of the line editor.
func (b *Board) key(c byte) (line string, entered bool) {
	switch {
	case b.gone:
	case b.counting:
		b.stop(c)
	case c == '\r' || c == '\n':
		line = string(b.line)
		b.line = b.line[:0]
		b.print("\r\n")
		return line, true
	case c == 0x03:
		b.line, b.lastLine = b.line[:0], ""
		if !b.QuietInterrupt {
			b.print("<INTERRUPT>\r\n")
		}
		b.print(b.Prompt)
	case c == 0x08 || c == 0x7f:
		if len(b.line) > 0 {
			b.line = b.line[:len(b.line)-1]
			b.print("\b \b")
		}
	case c == 0x15: // ^U
		b.print(strings.Repeat("\b", len(b.line)) + strings.Repeat(" ", len(b.line)) + strings.Repeat("\b", len(b.line)))
		b.line = b.line[:0]
	case c < ' ':
	case len(b.line) >= b.MaxLine-1:
		b.print("\a")
	default:
		b.line = append(b.line, c)
		b.print(string([]byte{c}))
	}
	return "", false
}

// enter runs a line. An empty one runs the last one again.
func (b *Board) enter(line string) {
	if strings.TrimSpace(line) == "" {
		line = b.lastLine
	}
	b.lastLine = line
	for _, command := range split(line) {
		b.run(command)
	}
	if !b.gone {
		b.print(b.Prompt)
	}
}

// split cuts a line at the semicolons that stand outside of quotes.
func split(line string) (commands []string) {
	var quote byte
	start := 0
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quote != '\'':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ';':
			commands = append(commands, strings.TrimSpace(line[start:i]))
			start = i + 1
		}
	}
	return append(commands, strings.TrimSpace(line[start:]))
}

func (b *Board) run(command string) {
	if answers := b.Answers[command]; len(answers) > 0 {
		if len(answers) > 1 {
			b.Answers[command] = answers[1:]
		}
		b.print(answers[0].Output)
		b.status = answers[0].Status
		return
	}
	words := fields(command)
	if len(words) == 0 {
		return
	}
	status := 0
	switch words[0] {
	case "echo":
		text := strings.Join(words[1:], " ")
		b.print(strings.ReplaceAll(text, "$?", fmt.Sprint(b.status)) + "\r\n")
	case "true":
	case "false":
		status = 1
	case "setenv":
		if len(words) > 2 {
			b.env[words[1]] = strings.Join(words[2:], " ")
		} else if len(words) == 2 {
			delete(b.env, words[1])
		}
	case "printenv":
		for _, name := range words[1:] {
			if value, ok := b.env[name]; ok {
				b.print(name + "=" + value + "\r\n")
			} else {
				b.print("## Error: \"" + name + "\" not defined\r\n")
				status = 1
			}
		}
	default:
		b.print(fmt.Sprintf("Unknown command '%s' - try 'help'\r\n", words[0]))
		status = 1
	}
	b.status = status
}

// fields cuts a command into words as hush does, quotes removed.
func fields(command string) (words []string) {
	var word strings.Builder
	var quote byte
	inWord := false
	for i := 0; i < len(command); i++ {
		c := command[i]
		switch {
		case c == '\\' && i+1 < len(command):
			i++
			word.WriteByte(command[i])
			inWord = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, inWord = c, true
		case quote == 0 && c == ' ':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if inWord {
		words = append(words, word.String())
	}
	return words
}
