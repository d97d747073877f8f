package tftp_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// network is a network in memory, whose packets arrive at once and in order.
// Its waits are of the kind that package synctest knows.
type network struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*memConn
	port  uint16
}

func newNetwork() *network {
	return &network{conns: make(map[netip.AddrPort]*memConn), port: 40000}
}

// ListenPacket opens a connection on an address; one without a host is given
// that of the server.
func (n *network) ListenPacket(_, address string) (net.PacketConn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "192.168.7.1"
	}
	local, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if local.Port() == 0 {
		n.port++
		local = netip.AddrPortFrom(local.Addr(), n.port)
	}
	if n.conns[local] != nil {
		return nil, errors.New("address in use")
	}
	c := &memConn{network: n, local: local, packets: make(chan memPacket, 4096), done: make(chan struct{}), rearm: make(chan struct{}, 1)}
	n.conns[local] = c
	return c, nil
}

// open returns how many connections are open.
func (n *network) open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

type memPacket struct {
	data []byte
	from netip.AddrPort
}

type memConn struct {
	network *network
	local   netip.AddrPort
	packets chan memPacket
	done    chan struct{}
	rearm   chan struct{}

	mu       sync.Mutex
	deadline time.Time
	once     sync.Once
}

func (c *memConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		var timeout <-chan time.Time
		if !deadline.IsZero() {
			left := time.Until(deadline)
			if left <= 0 {
				return 0, nil, os.ErrDeadlineExceeded
			}
			timer := time.NewTimer(left)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-c.done:
			return 0, nil, net.ErrClosed
		case packet := <-c.packets:
			return copy(p, packet.data), net.UDPAddrFromAddrPort(packet.from), nil
		case <-timeout:
		case <-c.rearm:
		}
	}
}

func (c *memConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
	}
	to := addr.(*net.UDPAddr).AddrPort()
	c.network.mu.Lock()
	peer := c.network.conns[netip.AddrPortFrom(to.Addr().Unmap(), to.Port())]
	c.network.mu.Unlock()
	if peer != nil {
		select {
		case peer.packets <- memPacket{append([]byte(nil), p...), c.local}:
		default: // a full receive buffer
		}
	}
	return len(p), nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	select {
	case c.rearm <- struct{}{}:
	default:
	}
	return nil
}

func (c *memConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		c.network.mu.Lock()
		delete(c.network.conns, c.local)
		c.network.mu.Unlock()
		close(c.done)
		err = nil
	})
	return err
}

func (c *memConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.local) }
func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }

var serverPort = netip.MustParseAddrPort("192.168.7.1:69")

// peer is the other side of a server, played packet by packet.
type peer struct {
	t    *testing.T
	conn net.PacketConn
	tid  netip.AddrPort // where the server's last packet came from
	buf  []byte
}

// withServer runs a server on a network in memory, under a clock of its own,
// and plays a client on port 1069 against it.
func withServer(t *testing.T, server *tftp.Server, play func(t *testing.T, n *network, p *peer)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		conn, err := n.ListenPacket("udp", serverPort.String())
		if err != nil {
			t.Fatal(err)
		}
		if server.ListenPacket == nil {
			server.ListenPacket = n.ListenPacket
		}
		served := make(chan error, 1)
		go func() { served <- server.Serve(conn) }()
		synctest.Wait()
		p := newPeer(t, n, "192.168.7.2:1069")
		defer func() {
			p.conn.Close()
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			if err := <-served; !errors.Is(err, tftp.ErrServerClosed) {
				t.Errorf("Serve returned %v, want ErrServerClosed", err)
			}
			if open := n.open(); open != 0 && !t.Failed() {
				t.Errorf("%d connections are left open", open)
			}
		}()
		play(t, n, p)
	})
}

func newPeer(t *testing.T, n *network, address string) *peer {
	t.Helper()
	conn, err := n.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &peer{t: t, conn: conn, tid: serverPort, buf: make([]byte, 65536)}
}

// request sends an RRQ or WRQ with options, names and values by turns.
func (p *peer) request(op tftp.Op, name, mode string, options ...string) {
	p.t.Helper()
	packet := binary.BigEndian.AppendUint16(nil, uint16(op))
	for _, text := range append([]string{name, mode}, options...) {
		packet = append(append(packet, text...), 0)
	}
	p.tid = serverPort
	p.send(packet)
}

func (p *peer) send(packet []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteTo(packet, net.UDPAddrFromAddrPort(p.tid)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) ack(block uint16) {
	p.t.Helper()
	p.send(header(tftp.OpAck, block))
}

func (p *peer) data(block uint16, payload []byte) {
	p.t.Helper()
	p.send(append(header(tftp.OpData, block), payload...))
}

func header(op tftp.Op, block uint16) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(op)), block)
}

// next returns the next packet within a time, described in words, and "nothing"
// if there is none.
func (p *peer) next(within time.Duration) string {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		p.t.Fatal(err)
	}
	n, from, err := p.conn.ReadFrom(p.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "nothing"
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.tid = from.(*net.UDPAddr).AddrPort()
	return words(p.buf[:n])
}

// expect reads packets and compares their descriptions.
func (p *peer) expect(want ...string) {
	p.t.Helper()
	for _, want := range want {
		if got := p.next(time.Millisecond); got != want {
			p.t.Fatalf("got %s, want %s", got, want)
		}
	}
}

// expectSilence checks that nothing is sent for a time.
func (p *peer) expectSilence(d time.Duration) {
	p.t.Helper()
	if got := p.next(d); got != "nothing" {
		p.t.Fatalf("got %s, want nothing for %v", got, d)
	}
}

// words describes a packet.
func words(packet []byte) string {
	text := tftp.Packet{Local: serverPort, Peer: serverPort, Data: packet}.String()
	_, text, _ = strings.Cut(text, fmt.Sprintf("< %v ", serverPort))
	return text
}

// only returns a server's only transfer.
func only(t testing.TB, server *tftp.Server) tftp.Transfer {
	t.Helper()
	transfers := server.Transfers()
	if len(transfers) != 1 {
		t.Fatalf("%d transfers, want 1: %v", len(transfers), transfers)
	}
	return transfers[0]
}
