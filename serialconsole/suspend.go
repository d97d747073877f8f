package serialconsole

import "errors"

// Suspend ends every Expect, WaitFor and Send that waits, and has those to come
// fail at once, until Resume: the board at the other end was switched off, so
// that nothing is to be waited for. Their errors wrap cause. What arrives is
// still read, and text that is there already is still found. Where the console
// is suspended already, those to come wrap the new cause.
func (c *Console) Suspend(cause error) {
	if cause == nil {
		cause = errors.New("the console is suspended")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut.err() != nil {
		c.cut = newCut()
	}
	c.cut.cause = cause
	close(c.cut.made)
}

// Resume has waits and writes go on after Suspend.
func (c *Console) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut.err() != nil {
		c.cut = newCut()
	}
}

// cut is what ends waits and writes when a console is suspended.
type cut struct {
	made  chan struct{} // closed when the cut is made; cause is set then
	cause error
}

func newCut() *cut { return &cut{made: make(chan struct{})} }

// err returns the cause of a cut that was made, else nil.
func (c *cut) err() error {
	select {
	case <-c.made:
		return c.cause
	default:
		return nil
	}
}
