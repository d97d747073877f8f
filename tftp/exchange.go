package tftp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// linger is how long the side that is done stays for one that may not be: a
// server for the ACK of a read's last block, a receiver for a last block that
// comes again. It covers two waits of U-Boot's timer (5 s, net/tftp.c).
const linger = 12 * time.Second

// exchange is one transfer under way, on either side: its socket and peer, its
// waiting, and its record. sendFile and receiveFile carry it out. Its methods
// are for the transfer's own goroutine, but for snapshot, nudge and cancel.
type exchange struct {
	agreement
	socket  socket
	peer    netip.AddrPort
	anyPort bool                  // the peer's TID is not known yet: a client before the first answer
	admits  func(netip.Addr) bool // whether an address may talk to this side at all
	outside *atomic.Int64         // packets from addresses that may not
	giveUp  time.Duration

	in      []byte    // the packet received last
	armed   time.Time // the read deadline that socket has; it may come too early, never too late
	quiet   time.Time // since when the peer owes an answer
	apart   bool      // the socket cannot send packets together
	lastErr error     // the last error of the socket that may pass
	sha256  hash.Hash
	crc32   uint32
	ack     [headerSize]byte
	verb    string // "read uImage by 192.168.7.2:1069"
	notify  func(Transfer)
	log     *slog.Logger

	nudged atomic.Bool // the peer asked again, or stop is set: look up

	mu       sync.Mutex // guards all below, and changes of peer
	record   Transfer
	answered time.Time // when the peer last acknowledged something; zero before that
	tail     bool      // the last block was sent
	stored   bool      // the last block was received and the file stored
	next     []byte    // a request from the peer's TID that came when tail was set; nil for none
	nextSame bool      // it asks for what this transfer is
	stop     error     // why cancel was called
	outcome  Outcome   // what cancel asked for
	cancelFn context.CancelFunc
	done     bool

	faultsMu sync.Mutex // guards faults; the network takes it, mu may be held
	faults   []string
}

var (
	errWait   = errors.New("the wait is over")
	errNudged = errors.New("look up")
)

func newExchange(r request, peer netip.AddrPort) *exchange {
	x := &exchange{peer: peer, sha256: sha256.New()}
	x.agreement = agreement{blockSize: defaultBlockSize, windowSize: 1, size: -1}
	x.verb = fmt.Sprintf("%v %s: peer %v", r.op, r.filename, peer)
	x.record = Transfer{
		Op: r.op, Filename: r.filename, Mode: r.mode, Peer: peer,
		Requested: optionMap(r.options), Granted: optionMap(nil),
		TotalSize: -1, Start: time.Now(),
	}
	return x
}

func (x *exchange) snapshot() Transfer {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.record
	x.faultsMu.Lock()
	defer x.faultsMu.Unlock()
	t.Faults = x.faults[:len(x.faults):len(x.faults)]
	return t
}

// update changes the record.
func (x *exchange) update(change func(*Transfer)) {
	x.mu.Lock()
	change(&x.record)
	x.mu.Unlock()
}

// noteFault records what a script of faults did.
func (x *exchange) noteFault(text string) {
	x.faultsMu.Lock()
	defer x.faultsMu.Unlock()
	x.faults = append(x.faults, text)
}

// use gives the exchange its socket.
func (x *exchange) use(s socket) error {
	local, err := addrPort(s.LocalAddr())
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.socket, x.record.Local = s, local
	return nil
}

// agree puts an agreement into force.
func (x *exchange) agree(a agreement) {
	x.agreement = a
	x.update(func(t *Transfer) {
		t.BlockSize, t.WindowSize, t.TotalSize = a.blockSize, a.windowSize, a.size
		t.Granted = optionMap(a.granted)
	})
	if x.notify != nil {
		x.notify(x.snapshot())
	}
}

// adopt makes from, whence the first answer came, the peer's TID (RFC 1350
// section 4).
func (x *exchange) adopt(from netip.AddrPort) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peer, x.anyPort, x.record.Peer = from, false, from
}

// send sends a packet to the peer. An error that may pass counts as a lost
// packet.
func (x *exchange) send(packet []byte) error {
	_, err := x.socket.WriteToUDPAddrPort(packet, x.peer)
	if err == nil {
		return nil
	}
	if !passing(err) {
		return fmt.Errorf("send %s: %w", describe(packet), err)
	}
	x.lastErr = err
	return nil
}

// sendAck acknowledges block.
func (x *exchange) sendAck(block int64) error {
	putHeader(x.ack[:], OpAck, uint16(block))
	return x.send(x.ack[:])
}

// until returns when to look after a packet that was sent at sent: when it is
// time to send it again, or when the peer's time is up.
func (x *exchange) until(sent time.Time) time.Time {
	again, end := sent.Add(x.timeout), x.quiet.Add(x.giveUp)
	if end.Before(again) {
		return end
	}
	return again
}

// receive returns the peer's next packet, which is valid until the next call.
// It returns errWait at the time until, errNudged after nudge and cancel, and a
// *PeerError for an ERROR of the peer. Packets of others are answered as RFC
// 1350 section 4 asks and not returned.
func (x *exchange) receive(until time.Time) (packet []byte, from netip.AddrPort, err error) {
	for {
		if x.armed.IsZero() || x.armed.After(until) {
			// Rather than to move the deadline with every packet, it is left
			// where it was when it comes too early, and set anew when it came.
			if err := x.socket.SetReadDeadline(until); err != nil {
				return nil, from, err
			}
			x.armed = until
		}
		if x.nudged.Swap(false) {
			return nil, from, errNudged
		}
		n, from, err := x.socket.ReadFromUDPAddrPort(x.in)
		switch {
		case err == nil:
		case timedOut(err):
			x.armed = time.Time{}
			if x.nudged.Swap(false) {
				return nil, from, errNudged
			}
			if !time.Now().Before(until) {
				return nil, from, errWait
			}
			continue
		case passing(err):
			x.lastErr = err
			if !time.Now().Before(until) {
				return nil, from, errWait
			}
			continue
		default:
			return nil, from, fmt.Errorf("receive: %w", err)
		}
		packet, from = x.in[:n], unmap(from)
		if from != x.peer && (!x.anyPort || from.Addr() != x.peer.Addr()) {
			x.stray(packet, from)
			continue
		}
		if e, ok := parseError(packet); ok {
			return nil, from, &PeerError{e}
		}
		return packet, from, nil
	}
}

func timedOut(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// stray answers a packet from another TID than the peer's.
func (x *exchange) stray(packet []byte, from netip.AddrPort) {
	if x.admits != nil && !x.admits(from.Addr()) {
		x.outside.Add(1)
		return
	}
	x.update(func(t *Transfer) { t.Strays++ })
	if opcode(packet) != OpError {
		// Best effort: who sent it will ask again or give up.
		_, _ = x.socket.WriteToUDPAddrPort(appendError(nil, &Error{CodeUnknownTransferID, "Unknown transfer ID"}), from)
	}
}

// waited accounts for a wait in vain, after which resend packets go out again.
// It fails when the peer was silent for too long.
func (x *exchange) waited(resend int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.record.Timeouts++
	if time.Since(x.quiet) < x.giveUp {
		x.record.Resent += resend
		return nil
	}
	if x.lastErr != nil {
		return fmt.Errorf("%w for %v; the network said: %w", ErrTimeout, x.giveUp, x.lastErr)
	}
	return fmt.Errorf("%w for %v", ErrTimeout, x.giveUp)
}

// digest takes payload into the checksums.
func (x *exchange) digest(payload []byte) {
	x.sha256.Write(payload)
	x.crc32 = crc32.Update(x.crc32, crc32.IEEETable, payload)
}

// nudge has the transfer's goroutine look up from its wait.
func (x *exchange) nudge() {
	x.nudged.Store(true)
	if x.socket != nil {
		// The deadline ends a read that is under way; one that begins now sees
		// nudged. Should it fail, the read ends at its own time.
		_ = x.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// verdict says what becomes of a request from a TID that has a transfer already.
type verdict int

const (
	isNew  verdict = iota // another transfer: the one before it is over
	isCopy                // of the request of the transfer that runs
	later                 // the transfer's goroutine decides, see askedAnew
)

// again is called for each request from the peer's TID; same says that it asks
// for what this transfer is.
func (x *exchange) again(next []byte, same bool) verdict {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.done || x.stop != nil || x.stored:
		return isNew
	case x.tail:
		// The peer may have sent its last ACK before the request: that is in
		// the transfer's socket then, and tells a new request from a copy.
		x.next, x.nextSame = append([]byte(nil), next...), same
		x.nudge()
		return later
	case same && x.answered.IsZero():
		x.record.Duplicates++
		if x.socket != nil {
			x.nudge()
		}
		return isCopy
	case same && x.justAnswered():
		x.record.Duplicates++
		return isCopy
	}
	return isNew
}

// justAnswered reports whether the peer is at work with this transfer: right
// after an answer its request is a copy that came late, when it has been silent
// for a while it began anew. x.mu is held.
func (x *exchange) justAnswered() bool {
	return time.Since(x.answered) < min(x.timeout/4, 250*time.Millisecond)
}

// asked returns the request that came while the last block was under way.
func (x *exchange) asked() (next []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.next
}

// askedAnew decides on that request when the last ACK is not there: an error
// says that the transfer is over. Else it was a copy and is forgotten; resend
// says that the peer has not had an answer yet.
func (x *exchange) askedAnew() (resend bool, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.nextSame || !x.answered.IsZero() && !x.justAnswered() {
		return false, fmt.Errorf("%w: %w", errUnconfirmed, errAnew)
	}
	x.next = nil
	x.record.Duplicates++
	return x.answered.IsZero(), nil
}

// cancel ends the transfer from outside. The peer is told say at once, also when
// the transfer's goroutine is held by a file; nothing if say is empty.
func (x *exchange) cancel(outcome Outcome, cause error, say string) {
	x.mu.Lock()
	if x.stop != nil {
		x.mu.Unlock()
		return
	}
	x.stop, x.outcome = cause, outcome
	if x.tail {
		x.outcome = Unconfirmed
	}
	socket, peer := x.socket, x.peer
	tell := socket != nil && !x.done && !x.stored && !x.anyPort && say != ""
	cancelContext := x.cancelFn
	x.mu.Unlock()
	// What follows may call the user's code: no lock is held.
	if cancelContext != nil {
		cancelContext()
	}
	if tell {
		_, _ = socket.WriteToUDPAddrPort(appendError(nil, &Error{CodeNotDefined, say}), peer)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.nudge()
}

// stopped returns why the transfer shall end, nil while it may go on.
func (x *exchange) stopped() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.stop
}

// lastSent records whether the last block is on its way.
func (x *exchange) lastSent() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tail = true
}

// isStored records that the file is stored: nothing is left to cancel.
func (x *exchange) isStored() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stored = true
}

// acknowledged records that the receiving side has the blocks up to block.
func (x *exchange) acknowledged(block, bytes int64, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.record.Blocks = block
	x.record.Size += bytes
	x.answered = now
}

// conclude finishes the record of a transfer that ended with err, and tells the
// peer if it does not know. It returns the record's error.
func (x *exchange) conclude(err error, tell func(error) *Error) error {
	outcome, err, message := x.judge(err, tell)
	if message != nil && x.socket != nil && !x.anyPort {
		_, _ = x.socket.WriteToUDPAddrPort(appendError(nil, message), x.peer)
	}
	if err != nil {
		err = fmt.Errorf("tftp: %s: %w", x.verb, err)
	}
	x.mu.Lock()
	x.sha256.Sum(x.record.SHA256[:0])
	x.record.CRC32 = x.crc32
	x.record.Outcome, x.record.Err, x.record.End = outcome, err, time.Now()
	x.done = true
	x.mu.Unlock()
	x.report()
	return err
}

// judge says what a transfer that ended with err has come to, why, and what the
// peer is to be told.
func (x *exchange) judge(err error, tell func(error) *Error) (Outcome, error, *Error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var sent *PeerError
	switch {
	case err == nil:
		return Complete, nil, nil
	case x.stop != nil:
		return x.outcome, x.stop, nil
	case errors.As(err, &sent):
		if x.tail && sent.Sent.Code == CodeUnknownTransferID {
			return Unconfirmed, err, nil // the peer has left this transfer behind
		}
		return Aborted, err, nil
	case errors.Is(err, errUnconfirmed):
		return Unconfirmed, err, nil
	case errors.Is(err, errDied):
		return Failed, err, nil
	}
	return Failed, err, tell(err)
}

// report tells the ones who follow transfers that this one ended.
func (x *exchange) report() {
	t := x.snapshot()
	if x.notify != nil {
		x.notify(t)
	}
	if x.log != nil {
		x.log.Info("tftp transfer ended", "op", t.Op.String(), "file", t.Filename, "peer", t.Peer.String(),
			"outcome", t.Outcome.String(), "bytes", t.Size, "resent", t.Resent, "err", t.Err)
	}
}
