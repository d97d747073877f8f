package tftp

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// ErrServerClosed is what Serve returns after Close, and the cause of every
// transfer that Close ended.
var ErrServerClosed = errors.New("tftp: server closed")

// ErrTimeout is wrapped by the error of a transfer whose peer fell silent.
var ErrTimeout = errors.New("the peer fell silent")

// ErrorCode is the code of an ERROR packet (RFC 1350 section 5, RFC 2347
// section 4). U-Boot gives up at once on codes 1 and 2 and may start again
// after any other (net/tftp.c).
type ErrorCode uint16

// The error codes.
const (
	CodeNotDefined        ErrorCode = 0
	CodeFileNotFound      ErrorCode = 1
	CodeAccessViolation   ErrorCode = 2
	CodeDiskFull          ErrorCode = 3
	CodeIllegalOperation  ErrorCode = 4
	CodeUnknownTransferID ErrorCode = 5
	CodeFileExists        ErrorCode = 6
	CodeNoSuchUser        ErrorCode = 7
	CodeOptionNegotiation ErrorCode = 8
)

// Error is an ERROR packet, sent or received. A source or sink of files may
// return one to choose what the client is told.
type Error struct {
	Code    ErrorCode
	Message string // without the closing NUL
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("error %d: %s", e.Code, e.Message) }

// Is lets errors.Is compare the codes 1, 2 and 6 with fs.ErrNotExist,
// fs.ErrPermission and fs.ErrExist.
func (e *Error) Is(target error) bool {
	switch e.Code {
	case CodeFileNotFound:
		return target == fs.ErrNotExist
	case CodeAccessViolation:
		return target == fs.ErrPermission
	case CodeFileExists:
		return target == fs.ErrExist
	}
	return false
}

// PeerError is the error of a transfer that the peer ended with an ERROR.
type PeerError struct {
	Sent *Error // what the peer sent
}

// Error implements error.
func (e *PeerError) Error() string { return "the peer sent " + e.Sent.Error() }

// Unwrap returns Sent.
func (e *PeerError) Unwrap() error { return e.Sent }

// The reasons of our own to end a transfer.
var (
	errUnconfirmed = errors.New("the last block was sent, its acknowledgement was not seen")
	errChanged     = errors.New("the file changed while it was sent")
	errTooLarge    = errors.New("the upload is larger than the server allows")
	errShort       = errors.New("the transfer ended at another size than its tsize")
	errAnew        = errors.New("the client began anew from the same port")
	errDied        = errors.New("the script let this side die")
)

// wireError chooses what the peer is told of err: a code and a fixed text. The
// error's own text stays here, since it may name paths of this host.
func wireError(err error) *Error {
	var own *Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errTooLarge), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return &Error{CodeDiskFull, "Disk full or allocation exceeded"}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENAMETOOLONG):
		return &Error{CodeFileNotFound, "File not found"}
	case errors.Is(err, fs.ErrExist):
		return &Error{CodeFileExists, "File already exists"}
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrInvalid), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EISDIR):
		return &Error{CodeAccessViolation, "Access violation"}
	case errors.Is(err, errChanged):
		return &Error{CodeNotDefined, "File changed while it was sent"}
	case errors.Is(err, errShort):
		return &Error{CodeNotDefined, "Size differs from tsize"}
	case errors.Is(err, ErrTimeout):
		return &Error{CodeNotDefined, "Timeout"}
	}
	return &Error{CodeNotDefined, "Input/output error"}
}
