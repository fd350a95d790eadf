from kt_cli.cli.app import main

main()
