package tftp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
)

// Linux sends many datagrams of one size in one call (UDP_SEGMENT,
// linux/udp.h): a window costs about as much as three blocks.
const (
	solUDP      = 17  // SOL_UDP
	udpSegment  = 103 // UDP_SEGMENT
	maxSegments = 64  // UDP_MAX_SEGMENTS
	maxTogether = 65000
)

// segmentingConn is a UDP socket that can send segments.
type segmentingConn struct {
	*net.UDPConn
	control []byte
}

// withSegments lets a socket send segments if the system can.
func withSegments(s socket) socket {
	conn, ok := s.(*net.UDPConn)
	if !ok {
		return s
	}
	control := make([]byte, syscall.CmsgSpace(2))
	// struct cmsghdr: a size_t and two ints.
	length := syscall.CmsgLen(2)
	if strconv.IntSize == 64 {
		binary.NativeEndian.PutUint64(control, uint64(length))
	} else {
		binary.NativeEndian.PutUint32(control, uint32(length))
	}
	binary.NativeEndian.PutUint32(control[syscall.SizeofCmsghdr-8:], solUDP)
	binary.NativeEndian.PutUint32(control[syscall.SizeofCmsghdr-4:], udpSegment)
	return &segmentingConn{conn, control}
}

// WriteSegments sends p as datagrams of size bytes, the last one of what is
// left.
func (c *segmentingConn) WriteSegments(p []byte, size int, to netip.AddrPort) error {
	binary.NativeEndian.PutUint16(c.control[syscall.SizeofCmsghdr:], uint16(size))
	_, _, err := c.WriteMsgUDPAddrPort(p, c.control, to)
	return err
}
