"""Do values that were made apart go together: is what two value files render valid, or are they refused in words?

combinations.py HELM: every pair of files of values/, the one over the other, for the newest Kubernetes.
"""

import itertools
import sys

import helm
import policy
import schemas

# How the chart refuses, and how its schema: an error of another template is none of the two.
refusals = ("execution error at (cachalot/templates/validate.yaml", "values don't meet the specifications of the schema")
least = 100


def main(binary):
    problems, rendered = [], 0
    for one, other in itertools.combinations(helm.value_files(), 2):
        pair = f"{one.stem} and {other.stem}"
        arguments = (f"--values={one}", f"--values={other}")
        code, _, err = helm.template(binary, *arguments)
        if code:
            if not any(refusal in err for refusal in refusals):
                problems.append(f"{pair}: {err}")
            continue
        rendered += 1
        documents = helm.render(binary, *arguments)
        builtin = [document for document in documents if document["kind"] not in schemas.custom]
        found = [problem for document in builtin for problem in schemas.builtin_problems(document, helm.versions[-1])]
        found += policy.about_references(documents)
        problems += [f"{pair}: {problem}" for problem in found]
    print("\n".join(problems))
    print(f"{rendered} pairs are rendered")
    return 1 if problems or rendered < least else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
