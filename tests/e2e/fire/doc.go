// Package fire tests millrace as whole processes while everything around them fails.
package fire
