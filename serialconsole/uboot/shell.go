package uboot

import (
	"context"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/boardspec/boardspec/serialconsole"
)

// Config says what is special about a board's U-Boot. The zero value is right
// for most, also where the prompt is another: it is learned.
type Config struct {
	Prompt  string // CONFIG_SYS_PROMPT; if empty, "=> " or what U-Boot turns out to print
	MaxLine int    // characters U-Boot takes in one line, below CONFIG_SYS_CBSIZE; 250 if zero
	Piece   int    // characters sent before their echo is waited for; 16 if zero, a UART's FIFO

	// Delay is a pause behind the echo of each piece, for a board that needs
	// time of its own; with Piece 1, behind each character. None if zero.
	Delay time.Duration

	// EchoTimeout is how long an echo may be outstanding before the board is
	// asked for it, with a space and its deletion: what is then echoed without
	// it shows that it is lost, and not late; 500 ms if zero.
	EchoTimeout time.Duration

	// Stop is typed when U-Boot announces autoboot, in place of Ctrl-C: the
	// stop string of AUTOBOOT_KEYED, or the password of AUTOBOOT_ENCRYPTION,
	// with "\r" behind it where it is hashed by crypt. Nothing is typed before
	// it, since a password must be all that was typed.
	Stop string
	// Announcement matches the line of text, ended or not, upon which Stop is
	// typed; "autoboot" in any case if nil.
	Announcement *regexp.Regexp

	// Idle is called whenever U-Boot is back at its prompt: until the next
	// character is typed it does nothing but wait for it. Nil for none.
	Idle func()

	// Reset brings a board that runs something else than U-Boot back to it, as
	// by cycling its power: Interrupt calls it once when it finds a Linux that
	// echoes its Ctrl-C. If nil, Interrupt fails there.
	Reset func(context.Context) error
}

// Shell is U-Boot's command line at the other end of a console. Its methods
// may not be called concurrently.
type Shell struct {
	console  *serialconsole.Console
	config   Config
	prompt   string // "=> " until another is learned
	stamped  bool   // each line begins with a time, which is not U-Boot's
	lost     bool   // where U-Boot is, is not known: find the prompt first
	probed   bool   // a probe was typed that was not echoed
	noisy    int    // for so many commands more the line counts as one that spoils characters
	putLast  bool   // the last transfer was a tftpput
	commands map[string]bool
	crashed  atomic.Pointer[string] // the line that showed it, while no command ran
}

// New returns a Shell on a console, which stays the caller's. It neither sends
// nor waits. From here on it notices when the board crashes or resets by itself:
// the next command says so.
func New(console *serialconsole.Console, config Config) *Shell {
	if config.MaxLine == 0 {
		config.MaxLine = 250
	}
	if config.Piece == 0 {
		config.Piece = 16
	}
	if config.EchoTimeout == 0 {
		config.EchoTimeout = 500 * time.Millisecond
	}
	if config.Announcement == nil {
		config.Announcement = autoboot
	}
	s := &Shell{console: console, config: config, prompt: config.Prompt, lost: true}
	if s.prompt == "" {
		s.prompt = "=> "
	}
	console.Watch(func(match serialconsole.Match) { s.crashed.Store(&match.Groups[0]) }, serialconsole.Line(crash))
	return s
}

var autoboot = regexp.MustCompile(`(?i)autoboot`)

// stamp matches what terminal servers and loggers put before each line: a time
// in brackets, or one with colons or a point.
const stamp = `(?:\[ *[-0-9:.,TZ +/]{3,40}\] ?|[-0-9T/ ]*\d\d:\d\d:\d\d(?:[.,]\d+)?Z?[ :>|]+)`

var (
	stampOnly  = regexp.MustCompile(`^` + stamp + `$`)
	stampLines = regexp.MustCompile(`(?m)^` + stamp)
)

// promptPattern matches the prompt at the start of a line.
func (s *Shell) promptPattern() serialconsole.Pattern {
	if s.stamped {
		return serialconsole.Regexp(regexp.MustCompile(`^` + stamp + regexp.QuoteMeta(s.prompt)))
	}
	return serialconsole.LineStart(s.prompt)
}
