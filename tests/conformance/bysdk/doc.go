// Package bysdk is the user function of Cloudstate's acceptance tests, written with package sdk as
// a user would. It serves what that package supports: event-sourced entities, value entities and
// actions.
package bysdk
