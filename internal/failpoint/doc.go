// Package failpoint names points at which tests crash the process. In a normal build Hit does
// nothing and costs nothing. In a build with tag failpoints the process kills itself, like kill -9,
// when the point in the environment variable MILLRACE_FAILPOINT is hit for the nth time, as in
// "after-send:17"; and each SIGUSR1 sets the wall clock of the process forward by Step, each
// SIGUSR2 back. It starts no goroutine.
package failpoint

import "time"

// Variable is the environment variable that arms one point, as name:n with n from 1.
const Variable = "MILLRACE_FAILPOINT"

// Step is how far a signal sets the wall clock.
const Step = 10 * time.Second

// The points, in the order in which a command passes them.
const (
	// BeforeSend: a batch is decided and not yet appended.
	BeforeSend = "before-send"
	// AfterSend: a batch was appended, and the log has not answered.
	AfterSend = "after-send"
	// AfterAck: the log has acknowledged a batch, the store does not have it.
	AfterAck = "after-ack"
	// AfterApply: the store has a batch, and its callers have no answer.
	AfterApply = "after-apply"
	// BeforeEffect: an effect of the outbox is about to be sent.
	BeforeEffect = "before-effect"
	// AfterEffect: the target has answered an effect, which is not settled.
	AfterEffect = "after-effect"
	// BeforeTimer: a timer is due, its command is not decided.
	BeforeTimer = "before-timer"
)

// Points returns all points.
func Points() []string {
	return []string{BeforeSend, AfterSend, AfterAck, AfterApply, BeforeEffect, AfterEffect, BeforeTimer}
}
