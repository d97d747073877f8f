package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What a Server goes by where a field is zero.
const (
	defaultTimeout      = time.Second
	defaultGiveUp       = 30 * time.Second
	defaultWindowSize   = 16
	defaultMaxUpload    = 1 << 30
	defaultMaxTransfers = 1024

	maxWindowBytes = 32 << 20 // of one window under way
	keptRecords    = 16384    // transfers that have ended
	gapsToShrink   = 4        // in one transfer, for the next ones of the peer to get half the window

	// What of a window the receive buffer of a socket holds for certain: on
	// Linux 208 KiB by default, of which a block takes more than its payload.
	receiveBuffer = 192 << 10
	perBlock      = 1 << 10
)

// Server serves files to TFTP clients, takes files from them, and records every
// transfer. The zero value refuses every request. Set the fields before Serve;
// the methods may be called concurrently.
type Server struct {
	FS            fs.FS          // files for read requests; nil refuses them
	Timeout       time.Duration  // wait before a packet is sent again, where the client asks for none; 1 s if zero
	GiveUp        time.Duration  // silence of the peer after which a transfer has failed; if zero 30 s, or four of the client's timeouts if that is longer. It must exceed the client's own timer (U-Boot: 5 s)
	MaxBlockSize  int            // largest blksize granted, in bytes; 65464 if zero
	MaxWindowSize int            // largest windowsize granted, in blocks; 16 if zero
	MaxUpload     int64          // largest file taken, in bytes; 1 GiB if zero, any size if negative
	MaxTransfers  int            // transfers running at once, a request beyond is refused; 1024 if zero. One address gets half at most
	Peers         []netip.Prefix // who may talk to the server; everyone if empty. Packets of others are dropped before any work and counted
	SinglePort    bool           // answer from the server's own port, for networks that let no other through; not what RFC 1350 says
	FinalErrors   bool           // send errors other than 1 as 2, so that U-Boot gives up rather than start again

	// Open gives the content for one read request, in place of FS. The size for
	// tsize is known where the reader has a method Stat, Len or Size, and Close
	// is called where it has one. The context ends with the transfer. An *Error
	// is sent as it is; of others the client is told a fixed text.
	Open func(ctx context.Context, r Request) (io.Reader, error)

	// Create takes the file of one write request; nil refuses them. See the
	// methods Create of [Memory] and [Dir].
	Create func(ctx context.Context, r Request) (Upload, error)

	// ListenPacket opens the socket of one transfer (RFC 1350 section 4);
	// net.ListenPacket if nil. Sockets with the methods ReadFromUDPAddrPort and
	// WriteToUDPAddrPort of a *net.UDPConn are used without allocating. One with
	// WriteSegments(p []byte, size int, to netip.AddrPort) error is given the
	// packets of a window in one call: p in pieces of size bytes, the last one
	// of what is left.
	ListenPacket func(network, address string) (net.PacketConn, error)

	Faults *Faults        // what shall go wrong; nothing if nil
	Trace  func(Packet)   // is called with every packet, from several goroutines; nil for none
	Notify func(Transfer) // is called when a transfer's options are agreed and when it has ended, from its goroutine; nil for none
	Log    *slog.Logger   // nil discards

	mu         sync.Mutex // guards all below
	conn       net.PacketConn
	closed     bool
	records    []*exchange // oldest first
	forgotten  int64       // records that made room for others
	active     map[netip.AddrPort]*session
	perAddress map[netip.Addr]int // running transfers
	running    int
	settled    chan struct{}      // closed when running falls to zero; nil while it is zero
	windowCap  map[netip.Addr]int // the window that a client could take, after repeated gaps
	inboxes    map[netip.AddrPort]*inbox
	goroutines sync.WaitGroup // Serve, and the transfers

	outside  atomic.Int64
	nonsense atomic.Int64
}

// session is a transfer of a server.
type session struct {
	*exchange
	request Request
	of      request
	limits  limits
	ctx     context.Context
	main    socket // the server's own
	release sync.Once
}

// Serve answers requests that arrive on conn. It blocks until Close and then
// returns ErrServerClosed, or until conn fails. It owns conn and closes it. A
// Server serves once.
func (s *Server) Serve(conn net.PacketConn) error {
	s.mu.Lock()
	if s.closed || s.conn != nil {
		closed := s.closed
		s.mu.Unlock()
		conn.Close()
		if closed {
			return ErrServerClosed
		}
		return errors.New("tftp: Serve was called twice")
	}
	s.conn = conn
	s.active = make(map[netip.AddrPort]*session)
	s.perAddress = make(map[netip.Addr]int)
	s.windowCap = make(map[netip.Addr]int)
	s.inboxes = make(map[netip.AddrPort]*inbox)
	s.goroutines.Add(1)
	s.mu.Unlock()
	defer s.goroutines.Done()
	defer conn.Close()

	wire := s.traced(newSocket(conn))
	requests := wire
	if s.Faults != nil {
		requests = s.Faults.wrap(wire, s.listener(), isRequestPacket, nil)
		defer requests.Close()
	}
	packet := make([]byte, 65536)
	for {
		n, peer, err := requests.ReadFromUDPAddrPort(packet)
		if err != nil {
			if s.isClosed() {
				return ErrServerClosed
			}
			if passing(err) {
				continue
			}
			return fmt.Errorf("tftp: serve on %v: %w", conn.LocalAddr(), err)
		}
		peer = unmap(peer)
		if !s.admits(peer.Addr()) {
			s.outside.Add(1)
			continue
		}
		s.handle(wire, packet[:n], peer)
	}
}

func isRequestPacket(packet []byte, sent bool) bool { return !sent && isRequest(opcode(packet)) }

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) admits(peer netip.Addr) bool {
	for _, prefix := range s.Peers {
		if prefix.Contains(peer) || prefix.Contains(peer.WithZone("")) {
			return true
		}
	}
	return len(s.Peers) == 0
}

func (s *Server) traced(wire socket) socket {
	if s.Trace == nil {
		return wire
	}
	return newTraced(wire, s.Trace)
}

func (s *Server) listener() func(network, address string) (net.PacketConn, error) {
	if s.ListenPacket != nil {
		return s.ListenPacket
	}
	return net.ListenPacket
}

// handle answers one packet that arrived on the server's port.
func (s *Server) handle(wire socket, packet []byte, peer netip.AddrPort) {
	if !isRequest(opcode(packet)) {
		s.mu.Lock()
		box := s.inboxes[peer]
		s.mu.Unlock()
		if box != nil {
			box.put(packet, peer, time.Time{})
		} else {
			s.nonsense.Add(1) // no ERROR in answer to what may be an ERROR
		}
		return
	}
	r, err := parseRequest(packet)
	x := &session{exchange: newExchange(r, peer), of: r, request: newRequest(r, peer), main: wire}
	x.admits, x.outside = s.admits, &s.outside
	x.notify, x.log = s.Notify, s.Log

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if running := s.active[peer]; running != nil && err == nil {
		same := running.of.op == r.op && running.of.filename == r.filename && running.of.mode == r.mode
		if running.again(packet, same) != isNew {
			s.mu.Unlock()
			return
		}
		s.release(running)
		defer running.cancel(Aborted, errAnew, "")
	}
	s.keep(x.exchange)
	var refusal *Error
	switch {
	case err != nil:
		refusal = &Error{CodeIllegalOperation, "Malformed request"}
	case r.mode != modeOctet && r.mode != modeNetascii:
		refusal = &Error{CodeIllegalOperation, "Unknown mode"}
	case s.running >= s.maxTransfers() || s.perAddress[peer.Addr()] >= (s.maxTransfers()+1)/2:
		refusal = &Error{CodeNotDefined, "Too many transfers"}
	}
	if refusal != nil {
		s.mu.Unlock()
		err := x.conclude(refusal, s.tell)
		_ = err // is in the record
		_, _ = wire.WriteToUDPAddrPort(appendError(nil, s.tell(refusal)), peer)
		return
	}
	x.limits = s.limitsFor(r, peer.Addr())
	x.giveUp = s.giveUp(0)
	x.timeout = x.limits.timeout
	var ctx context.Context
	ctx, x.cancelFn = context.WithCancel(context.Background())
	x.ctx = ctx
	s.active[peer] = x
	s.perAddress[peer.Addr()]++
	if s.running++; s.running == 1 {
		s.settled = make(chan struct{})
	}
	if s.SinglePort {
		s.inboxes[peer] = newInbox(256)
	}
	s.goroutines.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.goroutines.Done()
		s.carryOut(x)
	}()
}

// keep adds a record, in place of the oldest one that has ended if there are
// too many.
func (s *Server) keep(x *exchange) {
	s.records = append(s.records, x)
	if len(s.records) <= keptRecords {
		return
	}
	for i, old := range s.records[:len(s.records)/2] {
		if old.snapshot().Outcome != Running {
			s.records = append(s.records[:i], s.records[i+1:]...)
			s.forgotten++
			return
		}
	}
}

func (s *Server) maxTransfers() int {
	if s.MaxTransfers == 0 {
		return defaultMaxTransfers
	}
	return s.MaxTransfers
}

func (s *Server) maxUpload() int64 {
	if s.MaxUpload == 0 {
		return defaultMaxUpload
	}
	return s.MaxUpload
}

// giveUp returns the patience with a client whose own timer is timeout.
func (s *Server) giveUp(timeout time.Duration) time.Duration {
	if s.GiveUp == 0 {
		return max(defaultGiveUp, 4*timeout)
	}
	return s.GiveUp
}

// limitsFor returns what a client's request is granted at most; s.mu is held.
func (s *Server) limitsFor(r request, peer netip.Addr) limits {
	l := limits{
		blockSize: s.MaxBlockSize, windowSize: s.MaxWindowSize, windowBytes: maxWindowBytes,
		timeout: s.Timeout, maxTimeout: maxTimeout * time.Second,
	}
	if l.blockSize == 0 {
		l.blockSize = maxBlockSize
	}
	if l.windowSize == 0 {
		l.windowSize = defaultWindowSize
	}
	if most, ok := s.windowCap[peer]; ok {
		l.windowSize = min(l.windowSize, most)
	}
	if r.op == OpWrite {
		l.windowBytes, l.perBlock = receiveBuffer, perBlock
	}
	if l.timeout == 0 {
		l.timeout = defaultTimeout
	}
	if s.GiveUp > 0 {
		// Without a second try within the time there is no use in a timer.
		l.maxTimeout = s.GiveUp / 2
		l.timeout = min(l.timeout, l.maxTimeout)
	}
	return l
}

// tell chooses what a client is told of an error.
func (s *Server) tell(err error) *Error {
	e := wireError(err)
	if s.FinalErrors && e.Code != CodeFileNotFound {
		e = &Error{CodeAccessViolation, e.Message}
	}
	return e
}

// carryOut is the goroutine of a transfer.
func (s *Server) carryOut(x *session) {
	defer x.cancelFn()
	wire, err := s.transferSocket(x)
	if err == nil {
		defer wire.Close()
		err = x.use(wire)
	}
	var upload Upload
	switch {
	case err != nil:
		// There is no socket to say it from but the server's.
		_, _ = x.main.WriteToUDPAddrPort(appendError(nil, s.tell(&Error{CodeNotDefined, "Server is busy"})), x.peer)
	case x.of.op == OpRead:
		err = s.read(x)
	default:
		upload, err = s.write(x)
	}
	_ = x.conclude(err, s.tell) // is in the record
	if upload != nil && err != nil {
		if lost := upload.Discard(); lost != nil {
			x.update(func(t *Transfer) { t.Err = errors.Join(t.Err, fmt.Errorf("tftp: discard the upload: %w", lost)) })
		}
	}
	s.mu.Lock()
	s.end(x)
	s.mu.Unlock()
	if upload != nil && err == nil {
		x.stay(max(linger, 2*x.timeout))
	}
	s.mu.Lock()
	s.release(x)
	s.mu.Unlock()
	if next := x.asked(); next != nil {
		s.handle(x.main, next, x.request.Peer)
	}
}

// end takes a transfer off the running ones; s.mu is held.
func (s *Server) end(x *session) {
	t := x.snapshot()
	if t.Gaps >= gapsToShrink && t.WindowSize > 1 {
		s.windowCap[x.request.Peer.Addr()] = t.WindowSize / 2
	}
	address := x.request.Peer.Addr()
	if s.perAddress[address]--; s.perAddress[address] == 0 {
		delete(s.perAddress, address)
	}
	if s.running--; s.running == 0 {
		close(s.settled)
		s.settled = nil
	}
}

// release lets go of the peer's TID; s.mu is held.
func (s *Server) release(x *session) {
	peer := x.request.Peer
	x.release.Do(func() {
		delete(s.active, peer)
		delete(s.inboxes, peer)
	})
}

// transferSocket opens the socket of a transfer, on the address that the server
// listens on.
func (s *Server) transferSocket(x *session) (socket, error) {
	var wire socket
	if s.SinglePort {
		s.mu.Lock()
		box := s.inboxes[x.peer]
		s.mu.Unlock()
		if box == nil {
			return nil, errAnew
		}
		wire = sharedSocket{x.main, box}
	} else {
		host := ""
		// Not every ListenPacket has IPv6 behind an empty host.
		if local, err := addrPort(x.main.LocalAddr()); err == nil && local.Addr() != netip.IPv4Unspecified() {
			host = local.Addr().String()
		}
		conn, err := s.listener()("udp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("open the transfer's socket: %w", err)
		}
		wire = s.traced(withSegments(newSocket(conn)))
	}
	if s.Faults != nil {
		wire = s.Faults.wrap(wire, s.listener(), func(packet []byte, sent bool) bool {
			return !isRequestPacket(packet, sent)
		}, x.noteFault)
	}
	return wire, nil
}

// sharedSocket is a transfer's part of the server's own socket.
type sharedSocket struct {
	main socket
	box  *inbox
}

func (c sharedSocket) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	return c.box.read(p)
}
func (c sharedSocket) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	return c.main.WriteToUDPAddrPort(p, to)
}
func (c sharedSocket) LocalAddr() net.Addr { return c.main.LocalAddr() }
func (c sharedSocket) SetReadDeadline(t time.Time) error {
	c.box.setDeadline(t)
	return nil
}
func (c sharedSocket) Close() error {
	c.box.close()
	return nil
}

// agreeOn negotiates a request's options.
func (s *Server) agreeOn(x *session, size int64) {
	a := negotiate(x.of, x.limits, size)
	x.giveUp = s.giveUp(a.timeout)
	x.agree(a)
}

// read answers a read request.
func (s *Server) read(x *session) error {
	file, err := s.open(x.ctx, x.request)
	if err != nil {
		return err
	}
	defer file.close() // it was only read
	s.agreeOn(x, file.size)
	x.in = make([]byte, 2048) // an ACK or an ERROR
	if len(x.granted) > 0 {
		if err := x.sendFirst(appendOAck(nil, x.granted)); err != nil {
			return err
		}
	}
	return x.sendFile(file)
}

// write answers a write request. The upload is the caller's to discard when the
// error is not nil.
func (s *Server) write(x *session) (Upload, error) {
	upload, err := s.create(x.ctx, x.request)
	if err != nil {
		return nil, err
	}
	s.agreeOn(x, -1)
	x.in = make([]byte, headerSize+x.blockSize+1) // a block that is too large shows
	t := target{Writer: upload, limit: s.maxUpload(), commit: upload.Commit}
	if x.request.Mode == modeNetascii {
		translated := &netasciiWriter{w: upload}
		t.Writer = translated
		t.commit = func() error {
			if err := translated.flush(); err != nil {
				return err
			}
			return upload.Commit()
		}
	}
	prompt := appendOAck(nil, x.granted)
	if len(x.granted) == 0 {
		prompt = make([]byte, headerSize)
		putHeader(prompt, OpAck, 0)
	}
	return upload, x.receiveFile(t, prompt, nil)
}

// Transfers returns a copy of the record of every transfer, oldest first,
// running and refused ones included. The last 16384 are kept.
func (s *Server) Transfers() []Transfer {
	s.mu.Lock()
	records := append([]*exchange(nil), s.records...)
	s.mu.Unlock()
	transfers := make([]Transfer, len(records))
	for i, x := range records {
		transfers[i] = x.snapshot()
	}
	return transfers
}

// Stats counts what no record of a transfer tells.
type Stats struct {
	Outside   int64 // packets from addresses that are not among Server.Peers
	Nonsense  int64 // packets on the server's port that are no request and belong to no transfer
	Forgotten int64 // transfers whose record was dropped for newer ones
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Outside: s.outside.Load(), Nonsense: s.nonsense.Load(), Forgotten: s.forgotten}
}

// Settled blocks until no transfer is running, or ctx ends. A request that the
// server has not read yet does not count.
func (s *Server) Settled(ctx context.Context) error {
	for {
		s.mu.Lock()
		settled := s.settled
		s.mu.Unlock()
		if settled == nil {
			return nil
		}
		select {
		case <-settled:
		case <-ctx.Done():
			return fmt.Errorf("tftp: wait for the running transfers: %w; running: %s", context.Cause(ctx), s.held())
		}
	}
}

// held names the transfers that are running.
func (s *Server) held() string {
	var held []string
	for _, t := range s.Transfers() {
		if t.Outcome == Running {
			held = append(held, fmt.Sprintf("%v %q by %v", t.Op, t.Filename, t.Peer))
		}
	}
	return strings.Join(held, ", ")
}

// Abandon ends the running transfers with one address at once, as aborted for
// cause, and tells the peer nothing: it is gone, as a board whose power was cut.
// The peer may ask anew.
func (s *Server) Abandon(peer netip.Addr, cause error) {
	s.mu.Lock()
	var gone []*session
	for from, x := range s.active {
		if from.Addr() == peer.Unmap() {
			gone = append(gone, x)
		}
	}
	s.mu.Unlock()
	for _, x := range gone {
		x.cancel(Aborted, cause, "")
	}
}

// Close ends the server: the clients of running transfers are sent an ERROR,
// then the sockets are closed, and all goroutines are waited for. Where one
// does not end within five seconds (it is held by a file, or by Open) Close
// returns an error that names the transfer. To call it again is harmless.
func (s *Server) Close() error {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	conn := s.conn
	active := slices.Collect(maps.Values(s.active))
	s.mu.Unlock()
	for _, x := range active {
		x.cancel(Canceled, ErrServerClosed, "Server closed")
	}
	var err error
	if conn != nil && !already {
		if err = conn.Close(); errors.Is(err, net.ErrClosed) {
			err = nil // Serve was faster: it saw conn fail
		}
	}
	done := make(chan struct{})
	go func() {
		s.goroutines.Wait()
		close(done)
	}()
	timer := time.NewTimer(5 * time.Second)
	defer timer.Stop()
	select {
	case <-done:
		return err
	case <-timer.C:
	}
	held := s.held()
	if held == "" {
		held = "its socket"
	}
	return errors.Join(err, fmt.Errorf("tftp: close: after 5 s still held by %s", held))
}
