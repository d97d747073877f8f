package tftp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/boardspec/boardspec/tftp"
)

// Over a network that loses, doubles, delays, reorders, cuts and forges packets
// on both sides, a transfer arrives whole or is recorded as failed, within its
// time. Each transfer has a seed of its own: a failure names it.
func TestTruthUnderLoss(t *testing.T) {
	t.Parallel()
	transfers := 3000
	if testing.Short() {
		transfers = 300
	}
	var outcomes [6]int
	for seed := range uint64(transfers) {
		synctest.Test(t, func(t *testing.T) {
			outcome := transferUnderLoss(t, seed)
			outcomes[outcome]++
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("the server's outcomes: %v complete, %v unconfirmed, %v failed, %v aborted", outcomes[tftp.Complete], outcomes[tftp.Unconfirmed], outcomes[tftp.Failed], outcomes[tftp.Aborted])
	// Were the network too good or too bad, this would show nothing.
	if outcomes[tftp.Complete] < transfers/4 || outcomes[tftp.Failed] < transfers/50 || outcomes[tftp.Unconfirmed] == 0 {
		t.Errorf("the outcomes are %v", outcomes)
	}
}

func transferUnderLoss(t *testing.T, seed uint64) tftp.Outcome {
	dice := rand.New(rand.NewPCG(seed, 0))
	pick := func(choices ...int) int { return choices[dice.IntN(len(choices))] }
	faults := func() *tftp.Faults {
		f := &tftp.Faults{Seed: dice.Uint64()}
		add := func(most float64, do tftp.Action) {
			if dice.IntN(3) == 0 {
				f.Script = append(f.Script, tftp.Fault{Probability: dice.Float64()*most + 1e-9, Do: do})
			}
		}
		add(0.3, tftp.Drop())
		add(0.3, tftp.Duplicate())
		add(0.1, tftp.Reorder(1+dice.IntN(3)))
		add(0.3, tftp.Delay(time.Duration(dice.Int64N(int64(2*time.Second)))))
		add(0.02, tftp.Truncate(dice.IntN(600)))
		add(0.05, tftp.WrongTID())
		add(0.02, tftp.SetOpcode(uint16(dice.IntN(8))))
		add(0.02, tftp.Fail(tftp.ErrorCode(dice.IntN(9)), "scripted"))
		add(0.005, tftp.Silence())
		add(0.005, tftp.Die())
		return f
	}
	blockSize, windowSize := pick(8, 512, 512, 1468), pick(1, 1, 2, 4, 16)
	size := dice.IntN(40 * blockSize)
	if dice.IntN(4) == 0 {
		size -= size % blockSize
	}
	data := content(size)

	n := newNetwork()
	memory := new(tftp.Memory)
	server := &tftp.Server{
		FS: fstest.MapFS{"f": {Data: data}}, Create: memory.Create, ListenPacket: n.ListenPacket,
		Faults: faults(), SinglePort: dice.IntN(4) == 0,
	}
	conn, err := n.ListenPacket("udp", serverPort.String())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	client := &tftp.Client{BlockSize: blockSize, WindowSize: windowSize, ListenPacket: n.ListenPacket, Faults: faults(), Dally: time.Duration(pick(0, 5)) * time.Second}
	if dice.IntN(2) == 0 {
		client.Timeout = time.Duration(pick(1, 2, 5)) * time.Second
	}
	op := tftp.Op(pick(1, 2))
	begin := time.Now()
	var record tftp.Transfer
	var got bytes.Buffer
	if op == tftp.OpRead {
		record, err = client.Get(t.Context(), serverPort, "f", &got)
	} else {
		record, err = client.Put(t.Context(), serverPort, "f", bytes.NewReader(data))
	}
	// At the worst every block waits for the timer some times.
	if took := time.Since(begin); took > time.Hour {
		t.Errorf("the client took %v", took)
	}
	settle, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := server.Settled(settle); err != nil {
		t.Error(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, tftp.ErrServerClosed) {
		t.Error(err)
	}
	if open := n.open(); open != 0 {
		t.Errorf("%d connections are open", open)
	}

	digest := sha256.Sum256(data)
	describe := func() string {
		text := fmt.Sprintf("%v of %d bytes\nclient: %v\n  faults: %q", op, size, record, record.Faults)
		for _, transfer := range server.Transfers() {
			text += fmt.Sprintf("\nserver: %v\n  faults: %q", transfer, transfer.Faults)
		}
		return text
	}
	if (err == nil) != (record.Outcome == tftp.Complete) || record.Outcome == tftp.Running {
		t.Errorf("the client's record and error disagree: %s", describe())
	}
	stored, whole := memory.Bytes("f")
	if err == nil && (record.SHA256 != digest || record.Size != int64(size)) {
		t.Errorf("the client's record of a complete transfer is wrong: %s", describe())
	}
	if err == nil && op == tftp.OpRead && !bytes.Equal(got.Bytes(), data) {
		t.Errorf("the client got another file: %s", describe())
	}
	if err == nil && op == tftp.OpWrite && !whole {
		t.Errorf("the client was told of success, and there is no file: %s", describe())
	}
	if whole && !bytes.Equal(stored, data) {
		t.Errorf("the file that is stored is another: %s", describe())
	}
	outcome := tftp.Failed
	for _, transfer := range server.Transfers() {
		if transfer.Outcome == tftp.Running {
			t.Errorf("still running: %s", describe())
		}
		if transfer.Outcome != tftp.Complete && transfer.Err == nil || transfer.Outcome == tftp.Complete && transfer.Err != nil {
			t.Errorf("outcome and error disagree: %s", describe())
		}
		if transfer.Outcome == tftp.Complete && transfer.Op == op && (transfer.SHA256 != digest || transfer.Size != int64(size)) {
			t.Errorf("the server's record of a complete transfer is wrong: %s", describe())
		}
		if transfer.Outcome == tftp.Complete && op == tftp.OpRead && transfer.Op == op && got.Len() != size {
			t.Errorf("the server's record says complete, the client has %d bytes: %s", got.Len(), describe())
		}
		outcome = transfer.Outcome
	}
	return outcome
}
