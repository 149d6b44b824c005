// Command podtemplate writes what the Rust code about pod templates is checked against.
//
//	types    the Go types that a PodTemplateSpec consists of, in declaration order
//	oracle   for each template of inputs.json: its JSON, its hash, and what the API server makes of it
//	refusals for each template of invalid.json: what the API server says against it
//
// All go to standard output.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"reflect"
	"sort"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/kubernetes/pkg/apis/apps"
	internalappsv1 "k8s.io/kubernetes/pkg/apis/apps/v1"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	internalcorev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	"k8s.io/kubernetes/pkg/apis/core/validation"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: podtemplate types|oracle|refusals"))
	}
	switch os.Args[1] {
	case "types":
		fmt.Print(types())
	case "oracle":
		fmt.Print(oracle())
	case "refusals":
		fmt.Print(refusals())
	default:
		fail(fmt.Errorf("unknown command %q", os.Args[1]))
	}
}

// types prints one line a type and in it one text a field: "name kind flags". A kind is a word for what encoding/json
// does with it, or the name of another type of the table, after "*" for a pointer, "[]" for a list, "{}" for a map.
// Flags: o for omitempty, z for omitzero.
func types() string {
	table := map[string][]string{}
	var order []string
	var kind func(t reflect.Type) string
	var fields func(t reflect.Type) []string

	kind = func(t reflect.Type) string {
		switch t {
		case reflect.TypeOf(resource.Quantity{}):
			return "quantity"
		case reflect.TypeOf(metav1.Time{}):
			return "time"
		case reflect.TypeOf(metav1.FieldsV1{}):
			return "raw"
		case reflect.TypeOf(intstr.IntOrString{}):
			return "intOrString"
		}
		if t.Implements(reflect.TypeOf((*json.Marshaler)(nil)).Elem()) && t.Kind() != reflect.Pointer {
			fail(fmt.Errorf("%s writes its own JSON: teach the table about it", t))
		}
		switch t.Kind() {
		case reflect.Pointer:
			return "*" + kind(t.Elem())
		case reflect.Slice:
			if t.Elem().Kind() == reflect.Uint8 {
				fail(fmt.Errorf("%s is written as base64: teach the table about it", t))
			}
			return "[]" + kind(t.Elem())
		case reflect.Map:
			if t.Key().Kind() != reflect.String {
				fail(fmt.Errorf("%s has keys that are no strings", t))
			}
			return "{}" + kind(t.Elem())
		case reflect.String:
			return "string"
		case reflect.Bool:
			return "bool"
		case reflect.Int32:
			return "int32"
		case reflect.Int64:
			return "int64"
		case reflect.Struct:
			if _, seen := table[t.Name()]; !seen {
				table[t.Name()] = nil
				order = append(order, t.Name())
				table[t.Name()] = fields(t)
			}
			return t.Name()
		}
		fail(fmt.Errorf("%s: teach the table about %s", t, t.Kind()))
		return ""
	}
	fields = func(t reflect.Type) []string {
		var result []string
		for i := 0; i < t.NumField(); i++ {
			field := t.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			if field.Anonymous && name == "" {
				result = append(result, fields(field.Type)...)
				continue
			}
			if !field.IsExported() || name == "-" || name == "" {
				fail(fmt.Errorf("%s.%s: unexpected tag", t, field.Name))
			}
			flags := ""
			for _, option := range strings.Split(options, ",") {
				switch option {
				case "omitempty":
					flags += "o"
				case "omitzero":
					flags += "z"
				case "":
				default:
					fail(fmt.Errorf("%s.%s: unknown option %q", t, field.Name, option))
				}
			}
			result = append(result, strings.TrimSpace(name+" "+kind(field.Type)+" "+flags))
		}
		return result
	}
	kind(reflect.TypeOf(corev1.PodTemplateSpec{}))

	var out strings.Builder
	out.WriteString("{\n")
	for i, name := range order {
		line, err := json.Marshal(table[name])
		check(err)
		fmt.Fprintf(&out, "%q:%s", name, line)
		if i < len(order)-1 {
			out.WriteString(",")
		}
		out.WriteString("\n")
	}
	out.WriteString("}\n")
	return out.String()
}

type input struct {
	Name     string          `json:"name"`
	Template json.RawMessage `json:"template"`
}

type verdict struct {
	Name string `json:"name"`
	// Encoded is the text that is hashed.
	Encoded string `json:"encoded"`
	Hash    string `json:"hash"`
	// Collided is the hash with a collision count of 3.
	Collided string `json:"collided"`
	// Stored is the template of a ReplicaSet as the API server gives it back.
	Stored json.RawMessage `json:"stored"`
}

func oracle() string {
	var lines []any
	scheme := newScheme()
	for _, in := range read("inputs.json") {
		template := decode(in)
		encoded, err := json.Marshal(template)
		check(err)
		collisions := int32(3)

		internal := store(scheme, template)
		var external appsv1.ReplicaSet
		check(scheme.Convert(internal, &external, nil))
		stored, err := json.Marshal(external.Spec.Template)
		check(err)

		lines = append(lines, verdict{in.Name, string(encoded), hash(encoded, nil), hash(encoded, &collisions), stored})
	}
	return list(lines)
}

type refusal struct {
	Name   string   `json:"name"`
	Errors []string `json:"errors"`
}

func refusals() string {
	var lines []any
	scheme := newScheme()
	options := validation.PodValidationOptions{AllowRelaxedEnvironmentVariableValidation: true}
	for _, in := range read("invalid.json") {
		template := &store(scheme, decode(in)).Spec.Template
		errors := []string{}
		for _, err := range appsvalidation.ValidatePodTemplateSpecForReplicaSet(template, labels.NewSelector(), 1, nil, options) {
			errors = append(errors, err.Error())
		}
		// Kubernetes goes through maps in Go's random order.
		sort.Strings(errors)
		lines = append(lines, refusal{in.Name, errors})
	}
	return list(lines)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, apps.AddToScheme, internalcorev1.AddToScheme, internalappsv1.AddToScheme,
	} {
		check(add(scheme))
	}
	return scheme
}

// store does with a template what the API server does with that of a ReplicaSet.
func store(scheme *runtime.Scheme, template corev1.PodTemplateSpec) *apps.ReplicaSet {
	external := &appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Template: *template.DeepCopy()}}
	scheme.Default(external)
	var internal apps.ReplicaSet
	check(scheme.Convert(external, &internal, nil))
	return &internal
}

func read(file string) []input {
	text, err := os.ReadFile(file)
	check(err)
	var inputs []input
	check(json.Unmarshal(text, &inputs))
	return inputs
}

func decode(in input) corev1.PodTemplateSpec {
	var template corev1.PodTemplateSpec
	if err := json.Unmarshal(in.Template, &template); err != nil {
		fail(fmt.Errorf("%s: %w", in.Name, err))
	}
	return template
}

// list prints one element a line, so that a change is readable.
func list(elements []any) string {
	lines := make([]string, len(elements))
	for i, element := range elements {
		line, err := json.Marshal(element)
		check(err)
		lines[i] = string(line)
	}
	return "[\n" + strings.Join(lines, ",\n") + "\n]\n"
}

func hash(encoded []byte, collisionCount *int32) string {
	sum := fnv.New32a()
	sum.Write(encoded)
	if collisionCount != nil {
		count := make([]byte, 8)
		binary.LittleEndian.PutUint32(count, uint32(*collisionCount))
		sum.Write(count)
	}
	return rand.SafeEncodeString(fmt.Sprint(sum.Sum32()))
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "podtemplate:", err)
	os.Exit(1)
}
