package tftp

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Direction is which way a packet goes, as the side sees it that the script of
// faults belongs to.
type Direction int

// The directions.
const (
	Either Direction = iota
	Sent
	Received
)

// String returns "sent", "received" or "either".
func (d Direction) String() string {
	switch d {
	case Sent:
		return "sent"
	case Received:
		return "received"
	}
	return "either"
}

// Fault says what happens to which packets. Of a packet all of Direction,
// Kind, Block and If must fit; of those that fit Nth chooses one, Every some,
// Probability chance ones. Without these it happens to all that fit.
type Fault struct {
	Direction   Direction                // Either if zero
	Kind        Op                       // OpRead … OpOAck; every kind if zero
	Block       int64                    // DATA and ACK of this block, counted past 65535 in one transfer; every block if zero
	If          func(packet []byte) bool // whether the packet, as it is on the wire, fits; every one if nil
	Nth         int                      // the Nth that fits, counted from 1 over the life of the script
	Every       int                      // each one whose count is a multiple of it
	Probability float64                  // 0 < p < 1: with this chance
	Do          Action
}

// Faults is a script of what goes wrong with the packets of a server or client:
// put it into [Server.Faults] or [Client.Faults], or around any packet
// connection by [Faults.Wrap]. For each packet the faults of the script are
// tried in order, and all that fit happen, one after the other.
//
// Chance is drawn from Seed, for each fault on its own: the same packets meet
// the same fate in each run. Set the fields before use. A script is safe for
// concurrent use; its counts run over all connections that share it.
type Faults struct {
	Seed   uint64
	Script []Fault

	mu       sync.Mutex // guards all below
	seen     []int      // packets that fitted, by fault
	dice     []*rand.Rand
	happened []string
}

// Happened returns what the script did so far, in order.
func (f *Faults) Happened() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.happened...)
}

// Action is what happens to a packet. Make one by [Drop], [Duplicate], [Delay],
// [Reorder], [Corrupt], [Truncate], [WrongTID], [SetOpcode], [SetBlock],
// [SetOption], [Fail], [Silence] or [Die].
type Action struct {
	name string
	do   func(*fate, *rand.Rand)
}

// String returns what the action does, in the past tense.
func (a Action) String() string { return a.name }

// fate is what a script makes of one packet.
type fate struct {
	packet   []byte
	copies   int
	delay    time.Duration
	hold     int // until so many more packets went past
	wrongTID bool
	silence  bool
	err      error
}

// Drop loses the packet.
func Drop() Action {
	return Action{"dropped", func(f *fate, _ *rand.Rand) { f.copies = 0 }}
}

// Duplicate has the packet come twice.
func Duplicate() Action {
	return Action{"duplicated", func(f *fate, _ *rand.Rand) { f.copies *= 2 }}
}

// Delay holds the packet back for d, and with it those behind it: order holds.
func Delay(d time.Duration) Action {
	return Action{fmt.Sprintf("delayed by %v", d), func(f *fate, _ *rand.Rand) { f.delay += d }}
}

// Reorder lets the next n packets of the same direction overtake the packet. It
// is lost where no so many follow.
func Reorder(n int) Action {
	return Action{fmt.Sprintf("overtaken by %d", n), func(f *fate, _ *rand.Rand) { f.hold = n }}
}

// Corrupt flips one bit behind the first four bytes, or anywhere in a packet
// that has no more: what UDP's checksum failed to find.
func Corrupt() Action {
	return Action{"corrupted", func(f *fate, dice *rand.Rand) {
		from := headerSize
		if len(f.packet) <= headerSize {
			from = 0
		}
		if len(f.packet) > 0 {
			f.packet[from+dice.IntN(len(f.packet)-from)] ^= 1 << dice.IntN(8)
		}
	}}
}

// Truncate leaves the first n bytes.
func Truncate(n int) Action {
	return Action{fmt.Sprintf("truncated to %d bytes", n), func(f *fate, _ *rand.Rand) { f.packet = f.packet[:min(n, len(f.packet))] }}
}

// WrongTID has the packet come from another port.
func WrongTID() Action {
	return Action{"from a wrong TID", func(f *fate, _ *rand.Rand) { f.wrongTID = true }}
}

// SetOpcode changes the packet's opcode.
func SetOpcode(op uint16) Action {
	return Action{fmt.Sprintf("given opcode %d", op), func(f *fate, _ *rand.Rand) {
		if len(f.packet) >= 2 {
			binary.BigEndian.PutUint16(f.packet, op)
		}
	}}
}

// SetBlock changes the block number of a DATA or an ACK packet.
func SetBlock(block uint16) Action {
	return Action{fmt.Sprintf("given block number %d", block), func(f *fate, _ *rand.Rand) {
		if len(f.packet) >= headerSize {
			binary.BigEndian.PutUint16(f.packet[2:], block)
		}
	}}
}

// SetOption changes the value of an option in a request or an OACK, or adds the
// option.
func SetOption(name, value string) Action {
	return Action{fmt.Sprintf("given option %s=%s", name, value), func(f *fate, _ *rand.Rand) {
		set := func(options []option) []option {
			for i, o := range options {
				if o.name == name {
					options[i].value = value
					return options
				}
			}
			return append(options, option{name, value})
		}
		if r, err := parseRequest(f.packet); err == nil {
			r.options = set(r.options)
			f.packet = appendRequest(nil, r)
		} else if opcode(f.packet) == OpOAck {
			if options, ok := parseOptions(f.packet[2:]); ok {
				f.packet = appendOAck(nil, set(options))
			}
		}
	}}
}

// Fail ends the transfer in place of the packet: its side sends an ERROR with
// this code and message, as if it had run into trouble of its own.
func Fail(code ErrorCode, message string) Action {
	return Action{fmt.Sprintf("answered by error %d", code), func(f *fate, _ *rand.Rand) { f.err = &Error{code, message} }}
}

// Silence loses the packet and all that follow on its connection, both ways.
func Silence() Action {
	return Action{"lost in silence from here on", func(f *fate, _ *rand.Rand) { f.silence = true }}
}

// Die closes the connection in place of the packet, without a word: what a
// process that was killed leaves.
func Die() Action {
	return Action{"not sent: this side died", func(f *fate, _ *rand.Rand) { f.err = errDied }}
}

// Wrap puts the script between conn and its user. The result has the methods
// ReadFromUDPAddrPort and WriteToUDPAddrPort as well. Close waits until what is
// delayed was sent, closes conn, and waits for the goroutines of the script.
func (f *Faults) Wrap(conn net.PacketConn) net.PacketConn {
	return f.wrap(newSocket(conn), net.ListenPacket, nil, nil)
}

// Listen returns listen with the script around each connection it opens: for
// fields such as [Server.ListenPacket]. WrongTID uses listen for the other port.
func (f *Faults) Listen(listen func(network, address string) (net.PacketConn, error)) func(network, address string) (net.PacketConn, error) {
	return func(network, address string) (net.PacketConn, error) {
		conn, err := listen(network, address)
		if err != nil {
			return nil, err
		}
		return f.wrap(newSocket(conn), listen, nil, nil), nil
	}
}

type listenFunc = func(network, address string) (net.PacketConn, error)

// wrap puts the script around a socket. concerns chooses the packets that it
// looks at, all if nil; note is told what happens.
func (f *Faults) wrap(s socket, listen listenFunc, concerns func(packet []byte, sent bool) bool, note func(string)) *faulty {
	c := &faulty{
		socket: s, script: f, listen: listen, concerns: concerns, note: note, requests: note == nil && concerns != nil,
		in: newInbox(0), out: newInbox(0), pumped: make(chan struct{}),
	}
	go c.pump()
	return c
}

// faulty is a socket under a script of faults.
type faulty struct {
	socket
	script   *Faults
	listen   listenFunc
	concerns func(packet []byte, sent bool) bool
	note     func(string)
	requests bool // this is a server's own port, whose packets belong to many transfers

	in     *inbox        // what was received
	out    *inbox        // what is delayed on its way out
	pumped chan struct{} // closed when pump has ended

	mu     sync.Mutex // guards all below
	err    error      // the script's end of the connection, or that of the socket
	silent bool
	blocks int64 // the last block number seen, counted past 65535
	held   [2][]heldPacket
	other  net.PacketConn // another port, for WrongTID
	drain  chan struct{}  // closed when the line of delayed packets is empty and closed; nil before it is needed
	closed bool
}

type heldPacket struct {
	packet []byte
	peer   netip.AddrPort
	left   int
}

// judge decides on a packet. It returns nil where nothing happens to it.
func (c *faulty) judge(packet []byte, direction Direction) *fate {
	if c.concerns != nil && !c.concerns(packet, direction == Sent) {
		return nil
	}
	op := opcode(packet)
	block := int64(-1)
	if n, ok := blockNumber(packet, op); ok && (op == OpData || op == OpAck) {
		// The block nearest to the last one seen.
		c.blocks += int64(int16(n - uint16(c.blocks)))
		block = c.blocks
	}
	f := c.script
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen == nil {
		f.seen = make([]int, len(f.Script))
		for i := range f.Script {
			f.dice = append(f.dice, rand.New(rand.NewPCG(f.Seed, uint64(i))))
		}
	}
	var result *fate
	for i, rule := range f.Script {
		if rule.Direction != Either && rule.Direction != direction || rule.Kind != 0 && rule.Kind != op ||
			rule.Block != 0 && rule.Block != block || rule.If != nil && !rule.If(packet) || rule.Do.do == nil {
			continue
		}
		f.seen[i]++
		if rule.Nth != 0 && f.seen[i] != rule.Nth || rule.Every != 0 && f.seen[i]%rule.Every != 0 ||
			rule.Probability != 0 && f.dice[i].Float64() >= rule.Probability {
			continue
		}
		if result == nil {
			result = &fate{packet: append([]byte(nil), packet...), copies: 1}
		}
		text := fmt.Sprintf("%v %s: %v", direction, describe(packet), rule.Do)
		f.happened = append(f.happened, text)
		if c.note != nil {
			c.note(text)
		}
		rule.Do.do(result, f.dice[i])
	}
	return result
}

// pass has a packet go one way or the other as the script wants, and gives what
// comes of it, in order, to deliver.
func (c *faulty) pass(packet []byte, peer netip.AddrPort, direction Direction, deliver func(packet []byte, peer netip.AddrPort, due time.Time, wrongTID bool)) error {
	if c.err != nil || c.silent {
		return c.err
	}
	f := c.judge(packet, direction)
	if f == nil {
		f = &fate{packet: packet, copies: 1}
	}
	c.silent = c.silent || f.silence
	if f.err != nil && c.requests {
		// It ends what this request would have begun, not the server.
		if e, ok := f.err.(*Error); ok {
			_, _ = c.socket.WriteToUDPAddrPort(appendError(nil, e), peer)
		}
		return nil
	}
	if c.err = f.err; c.err != nil {
		return c.err
	}
	if c.silent {
		return nil
	}
	held := &c.held[direction-Sent]
	switch {
	case f.hold > 0:
		*held = append(*held, heldPacket{append([]byte(nil), f.packet...), peer, f.hold})
		return nil
	case f.copies > 0:
		var due time.Time
		if f.delay > 0 {
			due = time.Now().Add(f.delay)
		}
		for range f.copies {
			deliver(f.packet, peer, due, f.wrongTID)
		}
	}
	kept := (*held)[:0]
	for _, h := range *held {
		if h.left--; h.left > 0 {
			kept = append(kept, h)
			continue
		}
		deliver(h.packet, h.peer, time.Time{}, false)
	}
	*held = kept
	return nil
}

// pump takes what the socket receives.
func (c *faulty) pump() {
	defer close(c.pumped)
	packet := make([]byte, 65536)
	for {
		n, from, err := c.socket.ReadFromUDPAddrPort(packet)
		c.mu.Lock()
		if err != nil && passing(err) && !c.closed {
			c.mu.Unlock()
			continue
		}
		if err == nil {
			err = c.pass(packet[:n], unmap(from), Received, func(p []byte, peer netip.AddrPort, due time.Time, wrongTID bool) {
				if wrongTID {
					peer = netip.AddrPortFrom(peer.Addr(), peer.Port()^1)
				}
				c.in.put(p, peer, due)
			})
		}
		if err != nil {
			c.err = err
			c.in.close()
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
	}
}

// ReadFromUDPAddrPort returns the next packet that the script lets through.
func (c *faulty) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	n, from, err := c.in.read(p)
	if err == net.ErrClosed {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			err = c.err
		}
	}
	return n, from, err
}

// WriteToUDPAddrPort sends what the script makes of a packet.
func (c *faulty) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	if opcode(p) == OpError && c.err != nil && c.err != errDied {
		return c.socket.WriteToUDPAddrPort(p, to) // the word that Fail makes this side say
	}
	var failed error
	err := c.pass(p, to, Sent, func(p []byte, peer netip.AddrPort, due time.Time, wrongTID bool) {
		if due.IsZero() && !wrongTID && c.drain == nil {
			if _, err := c.socket.WriteToUDPAddrPort(p, peer); err != nil {
				failed = err
			}
			return
		}
		if wrongTID {
			failed = c.fromElsewhere(p, peer)
			return
		}
		if c.drain == nil {
			c.drain = make(chan struct{})
			go c.sendDelayed(c.drain)
		}
		c.out.put(p, peer, due)
	})
	if err == nil {
		err = failed
	}
	return len(p), err
}

// fromElsewhere sends a packet from another port.
func (c *faulty) fromElsewhere(packet []byte, peer netip.AddrPort) error {
	if c.other == nil {
		host := ""
		if local, err := addrPort(c.LocalAddr()); err == nil && !local.Addr().IsUnspecified() {
			host = local.Addr().String()
		}
		other, err := c.listen("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			return fmt.Errorf("open another port: %w", err)
		}
		c.other = other
	}
	_, err := c.other.WriteTo(packet, net.UDPAddrFromAddrPort(peer))
	return err
}

// sendDelayed sends what is delayed when it is due, until the line is closed.
func (c *faulty) sendDelayed(done chan struct{}) {
	defer close(done)
	packet := make([]byte, 65536)
	for {
		n, to, err := c.out.read(packet)
		if err != nil {
			return
		}
		if n == 0 && !to.IsValid() {
			return // Close's mark
		}
		// An error of a packet that its sender has done with is a lost packet.
		_, _ = c.socket.WriteToUDPAddrPort(packet[:n], to)
	}
}

// ReadFrom implements net.PacketConn.
func (c *faulty) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(p)
	if err != nil {
		return n, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo implements net.PacketConn.
func (c *faulty) WriteTo(p []byte, addr net.Addr) (int, error) {
	to, err := addrPort(addr)
	if err != nil {
		return 0, err
	}
	return c.WriteToUDPAddrPort(p, to)
}

// SetReadDeadline implements net.PacketConn.
func (c *faulty) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetDeadline implements net.PacketConn. Writes do not wait.
func (c *faulty) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn. Writes do not wait.
func (c *faulty) SetWriteDeadline(time.Time) error { return nil }

// Close implements net.PacketConn.
func (c *faulty) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	drain, other := c.drain, c.other
	c.mu.Unlock()
	if drain != nil {
		c.out.put(nil, netip.AddrPort{}, time.Time{})
		<-drain
	}
	err := c.socket.Close()
	c.in.close()
	<-c.pumped
	if other != nil {
		other.Close()
	}
	return err
}
