// Oracle answers what Go answers: it reads recorded cases (tab-separated, `#` starts a comment) from stdin, evaluates their
// inputs anew and writes them with the outcomes to stdout.
//
//	oracle expr      condition, result        -> true | false | <time> | error, message
//	oracle jsonpath  path, document           -> result sets as JSON   | error, message
//
// Both tables are compared with the Rust implementations in this repository's tests.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"k8s.io/client-go/util/jsonpath"
)

// A newline inside of a condition is written as this sign.
const newline = "␤"

func main() {
	answers := map[string]func(string, string) (string, error){"expr": condition, "jsonpath": path}
	if len(os.Args) != 2 || answers[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: oracle expr|jsonpath < cases > outcomes")
		os.Exit(2)
	}
	answer := answers[os.Args[1]]
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for lines.Scan() {
		line := lines.Text()
		if line == "" || strings.HasPrefix(line, "# ") {
			fmt.Fprintln(out, line)
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) < 2 {
			fmt.Fprintf(os.Stderr, "a case needs two fields: %q\n", line)
			os.Exit(1)
		}
		outcome, err := answer(repeated(strings.ReplaceAll(fields[0], newline, "\n")), fields[1])
		message := ""
		if err != nil {
			outcome = "error"
			message, _, _ = strings.Cut(err.Error(), "\n")
		}
		fmt.Fprintf(out, "%s\t%s\t%s\t%s\n", fields[0], fields[1], outcome, strings.ReplaceAll(message, "\t", " "))
	}
}

// A long input is written as `@<count>*<text>@`.
func repeated(text string) string {
	parts := strings.Split(text, "@")
	for i := 1; i < len(parts); i += 2 {
		count, what, _ := strings.Cut(parts[i], "*")
		n, err := strconv.Atoi(count)
		if err != nil {
			return text
		}
		parts[i] = strings.Repeat(what, n)
	}
	return strings.Join(parts, "")
}

// What Argo Rollouts puts into the environment of a condition, and, for the result "time", of a time expression.
func condition(source, given string) (outcome string, err error) {
	defer rescue(&err)
	env := map[string]any{"isNaN": math.IsNaN, "isInf": func(f float64) bool { return math.IsInf(f, 0) }}
	if given != "time" {
		result, err := value(given)
		if err != nil {
			return "", err
		}
		env["result"] = result
		env["asInt"] = asInt
		env["asFloat"] = asFloat
		env["isNil"] = func(any) bool { return result == nil }
		env["default"] = func(_, fallback any) any {
			if result == nil {
				return fallback
			}
			return result
		}
	}
	program, err := expr.Compile(source, expr.Env(env))
	if err != nil {
		return "", err
	}
	output, err := expr.Run(program, env)
	if err != nil {
		return "", err
	}
	switch output := output.(type) {
	case bool:
		if given != "time" {
			return strconv.FormatBool(output), nil
		}
	case time.Time:
		if given == "time" {
			return output.UTC().Format(time.RFC3339Nano), nil
		}
	}
	wanted := map[bool]string{true: "time.Time", false: "bool"}[given == "time"]
	return "", fmt.Errorf("expected %s, but got %T", wanted, output)
}

// Both libraries panic on some inputs; that is no example to follow.
func rescue(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("panic: %v", r)
	}
}

// JSON, or what JSON cannot hold: `float NaN`, and `floats 1 NaN` for the []float64 of a Prometheus vector.
func value(given string) (any, error) {
	kind, rest, _ := strings.Cut(given, " ")
	switch kind {
	case "float":
		return strconv.ParseFloat(rest, 64)
	case "floats":
		floats := []float64{}
		for _, field := range strings.Fields(rest) {
			float, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, err
			}
			floats = append(floats, float)
		}
		return floats, nil
	}
	var result any
	err := json.Unmarshal([]byte(given), &result)
	return result, err
}

func asInt(in any) int64 {
	switch in := in.(type) {
	case string:
		number, err := strconv.ParseInt(in, 10, 64)
		if err != nil {
			panic(err)
		}
		return number
	case nil:
	default:
		if v := reflect.ValueOf(in); v.CanInt() {
			return v.Int()
		} else if v.CanFloat() {
			return int64(v.Float())
		}
	}
	panic(fmt.Sprintf("asInt() not supported on %v %v", reflect.TypeOf(in), in))
}

func asFloat(in any) float64 {
	switch in := in.(type) {
	case string:
		number, err := strconv.ParseFloat(in, 64)
		if err != nil {
			panic(err)
		}
		return number
	case nil:
	default:
		if v := reflect.ValueOf(in); v.CanInt() {
			return float64(v.Int())
		} else if v.CanFloat() {
			return v.Float()
		}
	}
	panic(fmt.Sprintf("asFloat() not supported on %v %v", reflect.TypeOf(in), in))
}

func path(source, document string) (outcome string, err error) {
	defer rescue(&err)
	var data any
	if err := json.Unmarshal([]byte(document), &data); err != nil {
		return "", errors.New("bad case: " + err.Error())
	}
	parsed := jsonpath.New("metrics")
	if err := parsed.Parse(source); err != nil {
		return "", err
	}
	sets, err := parsed.FindResults(data)
	if err != nil {
		return "", err
	}
	found := [][]any{}
	for _, set := range sets {
		values := []any{}
		for _, v := range set {
			values = append(values, v.Interface())
		}
		found = append(found, values)
	}
	printed, err := json.Marshal(found)
	return string(printed), err
}
