//go:build linux || windows

package serialconsole

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.bug.st/serial/enumerator"
)

// findUSB returns the path of the one line whose USB adapter is as described.
func findUSB(parameters url.Values) (string, error) {
	vendor, product, serial := parameters.Get("vid"), parameters.Get("pid"), parameters.Get("serial")
	if vendor == "" && product == "" && serial == "" {
		return "", errors.New("no adapter is described; it reads usb:?vid=0403&pid=6001&serial=A50285BI, of which one is enough")
	}
	ports, err := enumerator.GetDetailedPortsList()
	if err != nil {
		return "", fmt.Errorf("list the serial lines: %w", err)
	}
	var there, fitting []string
	for _, port := range ports {
		if !port.IsUSB {
			continue
		}
		is := fmt.Sprintf("%s (vid=%s&pid=%s&serial=%s)", port.Name, strings.ToLower(port.VID), strings.ToLower(port.PID), port.SerialNumber)
		there = append(there, is)
		fits := func(want, is string) bool { return want == "" || strings.EqualFold(want, is) }
		if fits(vendor, port.VID) && fits(product, port.PID) && (serial == "" || serial == port.SerialNumber) {
			fitting = append(fitting, is)
		}
	}
	switch len(fitting) {
	case 1:
		path, _, _ := strings.Cut(fitting[0], " ")
		return path, nil
	case 0:
		if len(there) == 0 {
			return "", errors.New("no USB adapter with a serial line is plugged in")
		}
		return "", fmt.Errorf("no USB adapter fits; there are %s", strings.Join(there, ", "))
	}
	return "", fmt.Errorf("%d USB adapters fit, say more of the one that is meant: %s", len(fitting), strings.Join(fitting, ", "))
}
