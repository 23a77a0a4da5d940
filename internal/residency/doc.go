// Package residency keeps small what this process has in memory of the file it was started from.
package residency
