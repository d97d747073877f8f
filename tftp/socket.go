package tftp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// socket is all that a transfer sees of the network. A *net.UDPConn is one;
// faults and traces are layers that are one as well.
type socket interface {
	ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	LocalAddr() net.Addr
	Close() error
}

func newSocket(conn net.PacketConn) socket {
	if s, ok := conn.(socket); ok {
		return s
	}
	return packetConn{conn}
}

// segmenter is a socket that sends p as packets of size bytes, the last one of
// what is left, in one call.
type segmenter interface {
	WriteSegments(p []byte, size int, to netip.AddrPort) error
}

// packetConn makes a socket of any other net.PacketConn.
type packetConn struct{ net.PacketConn }

func (c packetConn) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	n, addr, err := c.ReadFrom(p)
	if err != nil {
		return n, netip.AddrPort{}, err
	}
	from, err := addrPort(addr)
	return n, from, err
}

func (c packetConn) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	return c.WriteTo(p, net.UDPAddrFromAddrPort(to))
}

func addrPort(addr net.Addr) (netip.AddrPort, error) {
	if udp, ok := addr.(*net.UDPAddr); ok {
		return unmap(udp.AddrPort()), nil
	}
	if addr == nil {
		return netip.AddrPort{}, errors.New("a socket without an address")
	}
	parsed, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return parsed, fmt.Errorf("%v is no address and port", addr)
	}
	return unmap(parsed), nil
}

// unmap makes an IPv4 address of one that a dual-stack socket gives as IPv6.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// passing reports an error of a socket that says nothing of its future: what
// ICMP had to say of an earlier packet, a full queue, a link that is down. The
// packet counts as lost, and the transfer's patience decides.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENOBUFS, syscall.EAGAIN,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EPERM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
