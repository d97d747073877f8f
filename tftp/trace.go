package tftp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Packet is one packet as it was on the wire, or was to be: the network may have
// refused to send it.
type Packet struct {
	Time  time.Time
	Sent  bool // by this side; else received
	Local netip.AddrPort
	Peer  netip.AddrPort
	Data  []byte // the UDP payload, valid during the call only
}

// String returns the packet in a few words: "192.168.7.1:69 < 192.168.7.2:1069
// ACK 7".
func (p Packet) String() string {
	arrow := '<'
	if p.Sent {
		arrow = '>'
	}
	return fmt.Sprintf("%v %c %v %s", p.Local, arrow, p.Peer, describe(p.Data))
}

// traced is a socket that shows its packets to someone.
type traced struct {
	socket
	local netip.AddrPort
	trace func(Packet)
}

func newTraced(s socket, trace func(Packet)) socket {
	local, _ := addrPort(s.LocalAddr()) // one that has none is traced without
	t := traced{s, local, trace}
	if together, ok := s.(segmenter); ok {
		return tracedSegments{t, together}
	}
	return t
}

func (t traced) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	n, from, err := t.socket.ReadFromUDPAddrPort(p)
	if err == nil {
		from = unmap(from)
		t.trace(Packet{time.Now(), false, t.local, from, p[:n]})
	}
	return n, from, err
}

func (t traced) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	// Before it is sent, since the answer may be seen sooner than the return.
	t.trace(Packet{time.Now(), true, t.local, to, p})
	return t.socket.WriteToUDPAddrPort(p, to)
}

// tracedSegments is a traced socket that can send segments.
type tracedSegments struct {
	traced
	together segmenter
}

func (t tracedSegments) WriteSegments(p []byte, size int, to netip.AddrPort) error {
	now := time.Now()
	for segment := range slices.Chunk(p, size) {
		t.trace(Packet{now, true, t.local, to, segment})
	}
	return t.together.WriteSegments(p, size, to)
}
