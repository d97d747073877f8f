package uboot

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
)

// Lease is what U-Boot got by DHCP.
type Lease struct {
	Addr     netip.Addr // the board's own
	ServerIP string     // where its files are, serverip; empty if not set
	BootFile string     // bootfile; empty if not set
	Output   string     // what dhcp printed
}

// DHCP has U-Boot ask for an address, and nothing more: no file is loaded.
func (s *Shell) DHCP(ctx context.Context) (Lease, error) {
	if _, err := s.Run(ctx, "setenv autoload no; setenv bootfile; setenv ipaddr"); err != nil {
		return Lease{}, err
	}
	output, err := s.run(ctx, "dhcp")
	if err != nil {
		return Lease{Output: output}, err
	}
	lease := Lease{Output: output}
	for name, into := range map[string]*string{"serverip": &lease.ServerIP, "bootfile": &lease.BootFile} {
		if *into, err = s.Getenv(ctx, name); err != nil && !errors.Is(err, ErrNotSet) {
			return lease, err
		}
	}
	addr, err := s.Getenv(ctx, "ipaddr")
	if err != nil {
		return lease, fmt.Errorf("uboot: dhcp got no address: %w", err)
	}
	if lease.Addr, err = netip.ParseAddr(addr); err != nil {
		return lease, fmt.Errorf("uboot: dhcp: variable ipaddr: %w", err)
	}
	return lease, nil
}

// Ping has U-Boot ping an address, by ping6 if it is an IPv6 address. One that
// does not answer yields an *ExitError.
func (s *Shell) Ping(ctx context.Context, addr netip.Addr) error {
	command := "ping "
	if addr.Is6() {
		if err := s.need(ctx, "ping6", "CONFIG_IPV6"); err != nil {
			return err
		}
		command = "ping6 "
	}
	output, err := s.Run(ctx, command+addr.String())
	var noise *NoiseError
	if errors.As(err, &noise) && alive.MatchString(output) {
		return nil // its status says so as well
	}
	return err
}

var alive = regexp.MustCompile(`(?m)^host \S+ is alive$`)

// PXEGet has U-Boot fetch its PXE configuration (pxelinux.cfg/...) from the TFTP
// server to $pxefile_addr_r.
func (s *Shell) PXEGet(ctx context.Context) error {
	if err := s.need(ctx, "pxe", "CONFIG_CMD_PXE"); err != nil {
		return err
	}
	_, err := s.run(ctx, "pxe get")
	return err
}

// PXEBoot boots what the PXE configuration says; see Boot.
func (s *Shell) PXEBoot(ctx context.Context) error {
	return s.Boot(ctx, "pxe boot", nil)
}
