// Package docs runs the commands of guides as a reader would, and compares what they print with
// what the guide says.
package docs
