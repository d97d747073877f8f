package serialconsole

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// The telnet protocol: RFC 854 (commands), RFC 856 (BINARY), RFC 857 (ECHO),
// RFC 858 (SUPPRESS-GO-AHEAD), RFC 2217 (COM-PORT).
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWill = 251
	telnetWont = 252
	telnetDo   = 253
	telnetDont = 254
	telnetIAC  = 255

	optionBinary  = 0
	optionEcho    = 1
	optionSGA     = 3
	optionComPort = 44

	comBaud     = 1
	comData     = 2
	comParity   = 3
	comStop     = 4
	comControl  = 5
	comFromHost = 100 // is added to what the server answers

	controlBreakOn, controlBreakOff = 5, 6
	controlDTROn, controlDTROff     = 8, 9
	controlRTSOn, controlRTSOff     = 11, 12
)

// telnetPort is a line behind a telnet server.
type telnetPort struct {
	conn net.Conn
	raw  []byte
	in   telnetParser

	mu      sync.Mutex    // guards all below, and whole writes
	nvt     bool          // the server refuses BINARY: a bare CR is CR NUL
	asked   map[byte]bool // options that WILL or DO was sent for
	com     comState
	answers map[byte]uint32 // what the server said of the line, by command
	closed  bool
}

// comState is what the server thinks of RFC 2217.
type comState int

const (
	comUnknown comState = iota
	comGranted
	comRefused
)

var (
	errNoComPort = errors.New("the server does not speak RFC 2217: it cannot set the line")
)

var _ LineControl = (*telnetPort)(nil)

// openTelnet connects, and sets the line as wanted where it is not nil. What the
// server sends meanwhile is kept for Read.
func openTelnet(ctx context.Context, address string, wanted *line) (*telnetPort, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	p := &telnetPort{
		conn: conn, raw: make([]byte, 4096),
		asked: make(map[byte]bool), answers: make(map[byte]uint32),
	}
	p.in.command, p.in.subnegotiation = p.onCommand, p.onSubnegotiation
	if err := p.ask(telnetDo, optionBinary, telnetWill, optionBinary, telnetDo, optionSGA, telnetWill, optionSGA, telnetWill, optionComPort); err != nil {
		conn.Close()
		return nil, err
	}
	if wanted != nil {
		if err := p.set(ctx, *wanted); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return p, nil
}

// ask sends commands, given as pairs of command and option.
func (p *telnetPort) ask(pairs ...byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var packet []byte
	for pair := range slices.Chunk(pairs, 2) {
		packet = append(packet, telnetIAC, pair[0], pair[1])
		p.asked[pair[1]] = true
	}
	_, err := p.conn.Write(packet)
	return err
}

// set sets the line's parameters and waits until the server has.
func (p *telnetPort) set(ctx context.Context, l line) error {
	// Until Open returns no one else reads.
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = p.conn.SetReadDeadline(time.Time{}) // a failure shows in the next read
	}()
	wait := func(done func() bool) error {
		for !done() {
			if err := p.receive(); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				return err
			}
		}
		return nil
	}
	if err := wait(func() bool { return p.com != comUnknown }); err != nil {
		return fmt.Errorf("wait for the server to speak RFC 2217: %w", err)
	}
	if p.com == comRefused {
		return errNoComPort
	}
	parity := map[string]byte{"none": 1, "odd": 2, "even": 3}[l.parity]
	for _, parameter := range []struct {
		name    string
		command byte
		value   []byte
	}{
		{"baud", comBaud, binary.BigEndian.AppendUint32(nil, uint32(l.baud))},
		{"data", comData, []byte{byte(l.data)}},
		{"parity", comParity, []byte{parity}},
		{"stop", comStop, []byte{byte(l.stop)}},
	} {
		if err := p.tell(parameter.command, parameter.value); err != nil {
			return err
		}
		if err := wait(func() bool { _, ok := p.answers[parameter.command]; return ok }); err != nil {
			return fmt.Errorf("wait for the server to set %s: %w", parameter.name, err)
		}
		if got, want := p.answers[parameter.command], number(parameter.value); got != want {
			return fmt.Errorf("the server set %s to %d, not to %d", parameter.name, got, want)
		}
	}
	return nil
}

// number reads a value of one or four bytes, big-endian.
func number(value []byte) uint32 {
	var n uint32
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	return n
}

// tell sends one command of RFC 2217.
func (p *telnetPort) tell(command byte, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	packet := append([]byte{telnetIAC, telnetSB, optionComPort, command}, escape(value)...)
	_, err := p.conn.Write(append(packet, telnetIAC, telnetSE))
	return err
}

// escape doubles bytes that would be IAC.
func escape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for _, c := range b {
		if out = append(out, c); c == telnetIAC {
			out = append(out, c)
		}
	}
	return out
}

// onCommand answers a request for an option, once: an answer to an answer would
// go on for ever.
func (p *telnetPort) onCommand(command, option byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	reply := func(command byte) {
		p.asked[option] = true
		// The reader would see the same error.
		_, _ = p.conn.Write([]byte{telnetIAC, command, option})
	}
	switch command {
	case telnetDo:
		switch option {
		case optionBinary:
			p.nvt = false
		case optionComPort:
			p.com = comGranted
		case optionSGA:
		default:
			reply(telnetWont)
			return
		}
		if !p.asked[option] {
			reply(telnetWill)
		}
	case telnetDont:
		switch option {
		case optionBinary:
			p.nvt = true
		case optionComPort:
			p.com = comRefused
		}
	case telnetWill:
		if option != optionBinary && option != optionSGA && option != optionEcho {
			reply(telnetDont)
		} else if !p.asked[option] {
			reply(telnetDo)
		}
	}
}

func (p *telnetPort) onSubnegotiation(option byte, content []byte) {
	if option == optionComPort && len(content) > 1 && content[0] > comFromHost {
		p.answers[content[0]-comFromHost] = number(content[1:])
	}
}

// receive reads once from the connection.
func (p *telnetPort) receive() error {
	n, err := p.conn.Read(p.raw)
	p.in.take(p.raw[:n])
	if n > 0 {
		return nil
	}
	return err
}

// Read implements io.Reader.
func (p *telnetPort) Read(b []byte) (int, error) {
	for len(p.in.text) == 0 {
		if err := p.receive(); err != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.closed {
				return 0, ErrClosed
			}
			return 0, err
		}
	}
	n := copy(b, p.in.text)
	p.in.text = p.in.text[:copy(p.in.text, p.in.text[n:])]
	return n, nil
}

// Write implements io.Writer.
func (p *telnetPort) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, ErrClosed
	}
	packet := escape(b)
	if p.nvt {
		// RFC 854, "The NVT printer and keyboard". Servers that have not
		// answered yet pass all on.
		for i := 0; i < len(packet); i++ {
			if packet[i] == '\r' {
				packet = slices.Insert(packet, i+1, 0)
			}
		}
	}
	if _, err := p.conn.Write(packet); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDTR implements LineControl.
func (p *telnetPort) SetDTR(on bool) error { return p.control(on, controlDTROn, controlDTROff) }

// SetRTS implements LineControl.
func (p *telnetPort) SetRTS(on bool) error { return p.control(on, controlRTSOn, controlRTSOff) }

// Break implements LineControl.
func (p *telnetPort) Break(d time.Duration) error {
	if err := p.control(true, controlBreakOn, controlBreakOff); err != nil {
		return err
	}
	<-time.After(d)
	return p.control(false, controlBreakOn, controlBreakOff)
}

func (p *telnetPort) control(on bool, yes, no byte) error {
	p.mu.Lock()
	refused := p.com == comRefused
	p.mu.Unlock()
	if refused {
		return fmt.Errorf("serialconsole: %w", errNoComPort)
	}
	if !on {
		yes = no
	}
	return p.tell(comControl, []byte{yes})
}

// Close implements io.Closer.
func (p *telnetPort) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	return p.conn.Close()
}

// telnetParser takes a stream, in whatever pieces, apart into text and
// commands.
type telnetParser struct {
	text           []byte // that was not read yet
	command        func(command, option byte)
	subnegotiation func(option byte, content []byte)

	state   telnetState
	verb    byte
	content []byte // of a subnegotiation, its option first
}

type telnetState int

const (
	telnetText telnetState = iota
	telnetCR               // behind CR, where NUL stands for nothing
	telnetEscape
	telnetOption
	telnetContent
	telnetContentEscape
)

// longestSubnegotiation bounds what a server may have kept, in bytes.
const longestSubnegotiation = 1024

func (t *telnetParser) take(raw []byte) {
	for _, c := range raw {
		switch t.state {
		case telnetText, telnetCR:
			afterCR := t.state == telnetCR
			t.state = telnetText
			switch {
			case c == telnetIAC:
				t.state = telnetEscape
			case c == 0 && afterCR:
			default:
				if t.text = append(t.text, c); c == '\r' {
					t.state = telnetCR
				}
			}
		case telnetEscape:
			switch c {
			case telnetIAC:
				t.text = append(t.text, c)
				t.state = telnetText
			case telnetWill, telnetWont, telnetDo, telnetDont:
				t.verb, t.state = c, telnetOption
			case telnetSB:
				t.content, t.state = t.content[:0], telnetContent
			default:
				t.state = telnetText
			}
		case telnetOption:
			t.command(t.verb, c)
			t.state = telnetText
		case telnetContent:
			if c == telnetIAC {
				t.state = telnetContentEscape
			} else if len(t.content) < longestSubnegotiation {
				t.content = append(t.content, c)
			}
		case telnetContentEscape:
			switch c {
			case telnetIAC:
				t.content, t.state = append(t.content, c), telnetContent
			case telnetSE:
				if len(t.content) > 0 {
					t.subnegotiation(t.content[0], t.content[1:])
				}
				t.state = telnetText
			default: // it was cut
				t.state = telnetText
			}
		}
	}
}
