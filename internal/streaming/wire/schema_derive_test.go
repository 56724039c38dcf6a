package wire

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var rewriteSchemas = flag.Bool("rewrite-schemas", false, "write schemas.go anew, from kmsg's source")

// TestSchemasAreWhatKmsgReads derives the table of schemas.go from the decoders in kmsg's
// source: what check walks over is what kmsg reads, field for field. After an update of
// kmsg run it with -rewrite-schemas.
func TestSchemasAreWhatKmsgReads(t *testing.T) {
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/twmb/franz-go/pkg/kmsg").Output()
	if err != nil {
		t.Fatalf("go list -m kmsg: %v", err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(output)), "generated.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	decoders := map[string]*ast.FuncDecl{}
	for _, decl := range file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name == "readFrom" {
			decoders[f.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name] = f
		}
	}
	var out strings.Builder
	out.WriteString("package wire\n\n// The structure of every message, derived from kmsg's decoders by\n" +
		"// TestSchemasAreWhatKmsgReads, which also checks that it still is: go test -run Schemas\n" +
		"// ./internal/streaming/wire -rewrite-schemas. See structure.go for the notation.\n\nvar schemas = [...]schema{\n")
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		request := kmsg.RequestForKey(key)
		if request == nil {
			continue
		}
		derive := func(message any) string {
			name := reflect.TypeOf(message).Elem().Name()
			tokens := deriver{t: t, message: name}.fields(decoders[name].Body.List)
			return strings.Join(tokens, " ")
		}
		fmt.Fprintf(&out, "\t%d: { // %s\n\t\trequest:  %q,\n\t\tresponse: %q,\n\t},\n", key, kmsg.NameForKey(key), derive(request), derive(request.ResponseKind()))
	}
	out.WriteString("}\n")
	if *rewriteSchemas {
		if err := os.WriteFile("schemas.go", []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile("schemas.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(stored) != out.String() {
		t.Error("schemas.go is not what kmsg's decoders read: run this test with -rewrite-schemas")
	}
}

// deriver turns the statements of a kmsg decoder into the notation of structure.go. It knows
// the few shapes that kmsg's generator emits and fails the test on any other that reads.
type deriver struct {
	t       *testing.T
	message string
}

func (d deriver) fields(statements []ast.Stmt) (tokens []string) {
	for _, statement := range statements {
		switch s := statement.(type) {
		case *ast.BlockStmt:
			tokens = append(tokens, d.field(s.List)...)
		case *ast.IfStmt:
			tokens = append(tokens, d.conditional(s)...)
		default:
			if reads := readsIn(statement); len(reads) > 0 {
				d.t.Fatalf("%s: %T reads %v outside a field", d.message, s, reads)
			}
		}
	}
	return tokens
}

// conditional is a field of some versions, or a section of tagged fields.
func (d deriver) conditional(s *ast.IfStmt) []string {
	switch condition := expression(s.Cond); {
	case condition == "isFlexible":
		return d.tags(s.Body.List)
	case strings.HasPrefix(condition, "version"):
		tokens := d.field(s.Body.List)
		var low, high int
		switch n, _ := fmt.Sscanf(condition, "version>=%d&&version<=%d", &low, &high); n {
		case 2:
			tokens[0] += fmt.Sprintf("@%d-%d", low, high)
		case 1:
			tokens[0] += fmt.Sprintf("@%d-", low)
		default:
			d.t.Fatalf("%s: condition %s", d.message, condition)
		}
		return tokens
	case condition == "!b.Ok()", condition == "err!=nil": // ends the decoding
		return nil
	}
	d.t.Fatalf("%s: condition %s", d.message, expression(s.Cond))
	return nil
}

// field is one field: an array, a nullable structure, a structure, or a scalar.
func (d deriver) field(statements []ast.Stmt) []string {
	for _, statement := range statements {
		switch s := statement.(type) {
		case *ast.ForStmt:
			inner := d.element(s.Body.List)
			return append(append([]string{"["}, inner...), "]")
		case *ast.IfStmt:
			if s.Init != nil && slices.Equal(readsIn(s.Init), []string{"Int8"}) {
				inner := d.fields(s.Body.List)
				return append(append([]string{"{?"}, inner...), "}")
			}
			var until int
			if n, _ := fmt.Sscanf(expression(s.Cond), "version<%d", &until); n == 1 && s.Else != nil {
				before, after := d.scalar(s.Body), d.scalar(s.Else)
				return []string{fmt.Sprintf("%s@0-%d", before, until-1), fmt.Sprintf("%s@%d-", after, until)}
			}
		case *ast.AssignStmt:
			if expression(s.Rhs[0]) == "v" && expression(s.Lhs[0]) == "s" { // a structure in place
				return d.fields(statements)
			}
		}
	}
	return []string{d.scalar(&ast.BlockStmt{List: statements})}
}

// element is what an array holds: structures, or scalars.
func (d deriver) element(statements []ast.Stmt) []string {
	for _, statement := range statements {
		if s, ok := statement.(*ast.AssignStmt); ok && expression(s.Lhs[0]) == "s" {
			return d.fields(statements)
		}
	}
	for _, statement := range statements { // an array of arrays
		if _, ok := statement.(*ast.ForStmt); ok {
			return d.field(statements)
		}
	}
	return []string{d.scalar(&ast.BlockStmt{List: statements})}
}

func (d deriver) scalar(node ast.Node) string {
	reads := readsIn(node)
	slices.Sort(reads)
	switch read := strings.Join(slices.Compact(reads), " "); read {
	case "Bool", "Int8":
		return "1"
	case "Int16", "Uint16":
		return "2"
	case "Int32", "Uint32":
		return "4"
	case "Int64", "Float64":
		return "8"
	case "Uuid":
		return "16"
	case "CompactString String UnsafeCompactString UnsafeString", "String UnsafeString":
		return "s"
	case "CompactNullableString NullableString UnsafeCompactNullableString UnsafeNullableString", "NullableString UnsafeNullableString":
		return "s?"
	case "Bytes CompactBytes", "Bytes":
		return "b"
	case "CompactNullableBytes NullableBytes", "NullableBytes":
		return "b?"
	default:
		d.t.Fatalf("%s: a field reads %q", d.message, read)
		return ""
	}
}

func (d deriver) tags(statements []ast.Stmt) []string {
	loop, ok := statements[0].(*ast.ForStmt)
	if !ok {
		return []string{"t"}
	}
	tokens := []string{"t("}
	for _, statement := range loop.Body.List[0].(*ast.SwitchStmt).Body.List {
		clause := statement.(*ast.CaseClause)
		if clause.List == nil {
			continue
		}
		body := clause.Body[1:] // after the reader of the field's own bytes
		tokens = append(tokens, expression(clause.List[0])+":")
		tokens = append(tokens, d.field(body)...)
	}
	return append(tokens, ")")
}

// readsIn lists the methods of kmsg's reader that are called below a node.
func readsIn(node ast.Node) (methods []string) {
	ast.Inspect(node, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			if method, found := strings.CutPrefix(expression(call.Fun), "b."); found && method != "Ok" && method != "Complete" {
				methods = append(methods, method)
			}
		}
		return true
	})
	return methods
}

// expression prints the few kinds of expressions that matter, without spaces.
func expression(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.BasicLit:
		return e.Value
	case *ast.SelectorExpr:
		return expression(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		return expression(e.Fun) + "()"
	case *ast.UnaryExpr:
		return e.Op.String() + expression(e.X)
	case *ast.BinaryExpr:
		return expression(e.X) + e.Op.String() + expression(e.Y)
	}
	return fmt.Sprintf("%T", e)
}
