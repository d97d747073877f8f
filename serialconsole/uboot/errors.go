package uboot

import "fmt"

// ExitError is a command that ran and failed.
type ExitError struct {
	Command string
	Status  int // $?
	Output  string
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("uboot: %s: exit status %d", e.Command, e.Status)
	}
	return fmt.Sprintf("uboot: %s: exit status %d: %s", e.Command, e.Status, lastLine(e.Output))
}

// CrashError is a board that crashed or reset while a command ran.
type CrashError struct {
	Command string
	Line    string // the line that shows it
}

// Error implements error.
func (e *CrashError) Error() string {
	return fmt.Sprintf("uboot: %s: the board crashed or reset: %s", e.Command, e.Line)
}

// NoiseError is a command whose result cannot be trusted, since the line spoils
// characters. It may have run, but for one that was never echoed as typed.
type NoiseError struct {
	Command string
	Output  string // what arrived of it
	Reason  string
}

// Error implements error.
func (e *NoiseError) Error() string {
	return fmt.Sprintf("uboot: %s: %s: the line spoils characters; lower the baud rate, look at the cable and its ground, or type less at a time (Config.Piece)", e.Command, e.Reason)
}
